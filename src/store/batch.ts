import type { Clock } from '../core/index.ts'
import type { ChunkRow } from './block-map.ts'
import type { DiskHealth } from './disk-health.ts'
import type { BlobUpdate, IndexDb, LateRow } from './index-db.ts'

/** Whichever comes first ends a batch. */
export const BATCH_ROWS = 64
export const BATCH_MS = 100

/** While the disk is off, "last used" of more blobs than this is not remembered, nor are more late rows. */
const MAX_IDLE = 4096

/** A blob whose rows are written later. Asked for them at the last moment, so that many changes cost one row. */
export interface BatchMember {
  blobUpdate(): BlobUpdate
  chunkUpdate(chunk: number): { blobId: number; row: ChunkRow }
}

export interface BatchDeps {
  readonly index: IndexDb
  readonly disk: DiskHealth
  readonly clock: Clock
}

/** `since`: which change, counted from the first ever, made it wait. Both maps below are in this order. */
interface Waiting {
  readonly since: number
}

/**
 * Rows that wait to be written. One transaction takes at most BATCH_ROWS of them. While the disk is off they stay; a crash loses them,
 * which loses work and never correctness.
 */
export class Batch {
  readonly #deps: BatchDeps
  readonly #closing = new AbortController()
  /** Changed blobs, each with its changed chunks. */
  readonly #members = new Map<BatchMember, Waiting & { readonly chunks: Set<number> }>()
  /** The latest row of each key. */
  readonly #late = new Map<string, Waiting & { readonly row: LateRow }>()
  #rows = 0
  #changes = 0
  #timer: Promise<void> | undefined

  constructor(deps: BatchDeps) {
    this.#deps = deps
  }

  get rows(): number {
    return this.#rows
  }

  /** The blob's row changed, and a chunk's too if one is named. */
  note(member: BatchMember, chunk?: number): void {
    let waiting = this.#members.get(member)
    if (waiting === undefined) {
      if (chunk === undefined && !this.#deps.disk.writable && this.#members.size >= MAX_IDLE) return
      waiting = { since: this.#nextChange(), chunks: new Set() }
      this.#members.set(member, waiting)
      this.#rows += 1
    }
    if (chunk !== undefined && !waiting.chunks.has(chunk)) {
      waiting.chunks.add(chunk)
      this.#rows += 1
    }
    this.#wake()
  }

  /** The blob has left the index: what waits for it must not be written. */
  forget(member: BatchMember): void {
    const waiting = this.#members.get(member)
    if (waiting === undefined) return
    this.#members.delete(member)
    this.#rows -= waiting.chunks.size + 1
  }

  /** A row of another table. `key` is the caller's name for it, one for all tables. */
  put(key: string, row: LateRow): void {
    const before = this.#late.get(key)
    if (before === undefined) {
      if (!this.#deps.disk.writable && this.#late.size >= MAX_IDLE) return
      this.#rows += 1
    }
    this.#late.set(key, { since: before?.since ?? this.#nextChange(), row })
    this.#wake()
  }

  /** The row that waits under this key. */
  waiting(key: string): LateRow | undefined {
    return this.#late.get(key)?.row
  }

  /** What waits under this key must not be written. */
  withdraw(key: string): void {
    if (this.#late.delete(key)) this.#rows -= 1
  }

  /**
   * Writes what waits when it is called, a transaction per turn of the event loop; what comes meanwhile may go along, and is not waited for.
   * False: the index refused; the rest still waits.
   */
  async flush(): Promise<boolean> {
    const last = this.#changes
    while (this.#oldest() <= last) {
      if (!this.#step()) return false
      await new Promise(setImmediate)
    }
    return true
  }

  /** Stops the timer and writes everything. False: the index refused. */
  async close(): Promise<boolean> {
    this.#closing.abort()
    await this.#timer
    while (this.#rows > 0) if (!(await this.flush())) return false
    return true
  }

  #nextChange(): number {
    this.#changes += 1
    return this.#changes
  }

  #oldest(): number {
    const [member] = this.#members.values()
    const [late] = this.#late.values()
    return Math.min(member?.since ?? Number.POSITIVE_INFINITY, late?.since ?? Number.POSITIVE_INFINITY)
  }

  #wake(): void {
    if (!this.#deps.disk.writable) return
    if (this.#rows >= BATCH_ROWS) this.#step()
    else this.#timer ??= this.#later()
  }

  async #later(): Promise<void> {
    try {
      await this.#deps.clock.sleep(BATCH_MS, { signal: this.#closing.signal })
    } catch {
      // Only an abort gets here: the batch is closing and flushes itself.
      return
    } finally {
      this.#timer = undefined
    }
    if (this.#deps.disk.writable) this.#step()
    if (this.#rows > 0 && this.#deps.disk.writable) this.#timer = this.#later()
  }

  /** One transaction. What it takes is forgotten only when it has succeeded. */
  #step(): boolean {
    const late: { key: string; row: LateRow }[] = []
    for (const [key, { row }] of this.#late) {
      if (late.length === BATCH_ROWS) break
      late.push({ key, row })
    }
    const blobs: BlobUpdate[] = []
    const chunks: { member: BatchMember; chunk: number; update: { blobId: number; row: ChunkRow } }[] = []
    const taken = (): number => late.length + blobs.length + chunks.length
    for (const [member, waiting] of this.#members) {
      if (taken() >= BATCH_ROWS) break
      for (const chunk of waiting.chunks) {
        if (taken() >= BATCH_ROWS - 1) break
        chunks.push({ member, chunk, update: member.chunkUpdate(chunk) })
      }
      blobs.push(member.blobUpdate())
    }
    if (taken() === 0) return true
    const committed = this.#deps.disk.guard(() => {
      this.#deps.index.commit(
        blobs,
        chunks.map(({ update }) => update),
        late.map(({ row }) => row),
      )
      return true
    })
    if (committed !== true) return false
    for (const { key } of late) this.withdraw(key)
    this.#settle(blobs.length, chunks)
    return true
  }

  #settle(blobs: number, chunks: readonly { member: BatchMember; chunk: number }[]): void {
    for (const { member, chunk } of chunks) {
      if (this.#members.get(member)?.chunks.delete(chunk) === true) this.#rows -= 1
    }
    let taken = 0
    for (const [member, waiting] of this.#members) {
      if (taken === blobs) return
      taken += 1
      // A blob whose chunks did not all fit comes again with the rest, its own row included.
      if (waiting.chunks.size > 0) continue
      this.#members.delete(member)
      this.#rows -= 1
    }
  }
}
