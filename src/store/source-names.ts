import type { DiskHealth } from './disk-health.ts'
import type { IndexDb } from './index-db.ts'

/** Stands for "not known" in a chunk row. */
const UNKNOWN = 0
/** Chunk rows hold 16 bits per source. */
const MAX_ID = 0xffff

/** Small numbers for the names of sources, kept in the index. */
export class SourceNames {
  readonly #index: IndexDb
  readonly #disk: DiskHealth
  readonly #ids = new Map<string, number>()
  readonly #names = new Map<number, string>()
  #lastId = UNKNOWN

  constructor(deps: { index: IndexDb; disk: DiskHealth }) {
    this.#index = deps.index
    this.#disk = deps.disk
    for (const { id, name } of deps.index.sources()) this.#remember(id, name)
  }

  /** The number of a name, made when it is new; 0 when it cannot be kept. */
  idOf(name: string): number {
    const known = this.#ids.get(name)
    if (known !== undefined) return known
    const id = this.#lastId + 1
    if (id > MAX_ID) return UNKNOWN
    const kept = this.#disk.guard(() => {
      this.#index.addSource(id, name)
      return true
    })
    if (kept !== true) return UNKNOWN
    this.#remember(id, name)
    return id
  }

  nameOf(id: number): string | undefined {
    return this.#names.get(id)
  }

  #remember(id: number, name: string): void {
    this.#ids.set(name, id)
    this.#names.set(id, name)
    this.#lastId = Math.max(this.#lastId, id)
  }
}
