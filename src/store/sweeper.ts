import type { Logger } from '../core/index.ts'
import type { DataFiles } from './data-files.ts'
import type { DiskHealth } from './disk-health.ts'
import type { Freed } from './evictor.ts'
import type { IndexDb } from './index-db.ts'
import type { Tasks } from './tasks.ts'

export interface SweeperDeps {
  readonly index: IndexDb
  readonly disk: DiskHealth
  readonly files: DataFiles
  readonly tasks: Tasks
  readonly log: Logger
  /** False: stop. */
  readonly isOpen: () => boolean
}

/** Names looked at in one turn of the event loop. */
const NAMES_PER_TURN = 64

/** Deletes data files that no row knows. Looks at every name, so it never runs at start, except beside a new index. */
export class Sweeper {
  readonly #deps: SweeperDeps

  constructor(deps: SweeperDeps) {
    this.#deps = deps
  }

  /** Sweeps in the background if a new index was put beside old data files; goes on at the next start if it is cut short. */
  resume(): void {
    const { disk, index, isOpen, log, tasks } = this.#deps
    if (index.meta('sweep') !== 1) return
    const run = async (): Promise<void> => {
      const swept = await this.sweep()
      if (!isOpen()) return
      disk.guard(() => {
        index.setMeta('sweep', 0)
        return true
      })
      if (swept.blobs > 0) log.info(swept, 'data files without a row deleted')
    }
    void tasks.track(run().catch((err: unknown) => log.warn({ err }, 'data files could not be swept')))
  }

  /** What was deleted, files counted as blobs. */
  async sweep(): Promise<Freed> {
    const { disk, files, index, isOpen } = this.#deps
    const swept = { blobs: 0, bytes: 0 }
    let names = 0
    for await (const digest of files.names()) {
      names += 1
      if (names % NAMES_PER_TURN === 0) await new Promise(setImmediate)
      if (!isOpen()) break
      const known = disk.guard(() => index.find(digest) !== undefined, 'index read failed')
      if (known !== false) continue
      // Nothing runs between the look at the index and this, which then keeps the name to itself.
      const bytes = await files.deleteOrphan(digest)
      if (bytes === undefined) continue
      swept.bytes += bytes
      swept.blobs += 1
    }
    return swept
  }
}
