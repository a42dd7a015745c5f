import { systemCode, type Logger } from '../core/index.ts'
import type { DiskThread } from './disk-thread.ts'
import type { Tasks } from './tasks.ts'

/** Pages (of 4 KiB) in the write-ahead log before it is moved into the database: 32 MiB, and one wait for the disk per that much. */
export const CHECKPOINT_PAGES = 8192

/**
 * Moves the write-ahead log into the database on the flushing thread, because that waits for the disk: SQLite's own checkpoints would hold
 * the event loop for as long.
 */
export class Checkpointer {
  readonly #deps: { flusher: DiskThread; tasks: Tasks; log: Logger }
  readonly #file: string
  #pages = 0
  #running = false

  constructor(deps: { flusher: DiskThread; tasks: Tasks; log: Logger }, options: { file: string }) {
    this.#deps = deps
    this.#file = options.file
  }

  /** At most so many more pages are in the log. */
  wrote(pages: number): void {
    this.#pages += pages
    if (this.#pages < CHECKPOINT_PAGES || this.#running) return
    this.#running = true
    // Never rejects.
    void this.#deps.tasks.track(this.#run())
  }

  async #run(): Promise<void> {
    const { flusher, log } = this.#deps
    const before = this.#pages
    try {
      await flusher.checkpoint(this.#file)
    } catch (err: unknown) {
      if (systemCode(err) !== 'ECANCELED') log.warn({ err }, 'index checkpoint failed')
    } finally {
      // What came meanwhile may still be in the log.
      this.#pages -= before
      this.#running = false
    }
  }
}
