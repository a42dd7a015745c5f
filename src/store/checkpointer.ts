import { systemCode, type Logger } from '../core/index.ts'
import type { DiskThread } from './disk-thread.ts'
import type { Tasks } from './tasks.ts'

/** Rows in the write-ahead log before it is moved into the database: at most some 30 MiB, and one wait for the disk per that much. */
const CHECKPOINT_ROWS = 4096

/**
 * Moves the write-ahead log into the database on the disk thread, because that waits for the disk: SQLite's own checkpoints would hold
 * the event loop for as long.
 */
export class Checkpointer {
  readonly #deps: { thread: DiskThread; tasks: Tasks; log: Logger }
  readonly #file: string
  #rows = 0
  #running = false

  constructor(deps: { thread: DiskThread; tasks: Tasks; log: Logger }, options: { file: string }) {
    this.#deps = deps
    this.#file = options.file
  }

  /** About so many more rows are in the log. */
  wrote(rows: number): void {
    this.#rows += rows
    if (this.#rows < CHECKPOINT_ROWS || this.#running) return
    this.#running = true
    // Never rejects.
    void this.#deps.tasks.track(this.#run())
  }

  async #run(): Promise<void> {
    const { thread, log } = this.#deps
    try {
      await thread.checkpoint(this.#file)
    } catch (err: unknown) {
      if (systemCode(err) !== 'ECANCELED') log.warn({ err }, 'index checkpoint failed')
    } finally {
      this.#rows = 0
      this.#running = false
    }
  }
}
