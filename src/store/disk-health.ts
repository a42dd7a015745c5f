import { describeError, systemCode, type Clock, type Logger } from '../core/index.ts'
import { isCorruption } from './index-open.ts'

/** How long the store stays off for writing before it tries the disk again. */
export const RETRY_MS = 30_000

export interface DiskHealthDeps {
  readonly log: Logger
  readonly clock: Clock
  /** Resolves when the disk takes bytes and the index takes rows again. */
  readonly probe: () => Promise<void>
  /** SQLite says that the index is damaged: the next start shall look at all of it. */
  readonly onCorruptIndex: () => Promise<void>
  readonly onRecovery: () => void
}

/**
 * Whether the disk takes writes. Any failed write, of a data file or of the index, turns the store off, said once; then the disk is tried
 * every RETRY_MS until it works.
 */
export class DiskHealth {
  readonly #deps: DiskHealthDeps
  readonly #closing = new AbortController()
  #recovery: Promise<void> | undefined
  #marking: Promise<void> | undefined

  constructor(deps: DiskHealthDeps) {
    this.#deps = deps
  }

  get writable(): boolean {
    return this.#recovery === undefined
  }

  /** A write has failed. */
  trouble(error: unknown, event: string): void {
    if (this.#closing.signal.aborted) return
    // Also while the disk is off already: what turned it off may have been something else.
    if (isCorruption(error)) this.#marking ??= this.#mark()
    if (this.#recovery !== undefined) return
    this.#deps.log.error(
      { err: error, code: systemCode(error), retryMs: RETRY_MS },
      `${event}; nothing is stored until the disk works again`,
    )
    this.#recovery = this.#recover()
  }

  /** Runs an index statement. Undefined when SQLite refused, which counts as trouble. Give it something that returns no undefined. */
  guard<T>(statement: () => T, event = 'index write failed'): T | undefined {
    try {
      return statement()
    } catch (error: unknown) {
      if (!(systemCode(error) ?? '').startsWith('SQLITE_')) throw error
      this.trouble(error, event)
      return undefined
    }
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#marking
    await this.#recovery
  }

  /** Once; a mark that could not be made is tried again when the next damage is found. Never rejects. */
  async #mark(): Promise<void> {
    try {
      await this.#deps.onCorruptIndex()
    } catch (err: unknown) {
      this.#deps.log.warn({ err }, 'index could not be marked')
      this.#marking = undefined
    }
  }

  async #recover(): Promise<void> {
    const { clock, log, probe, onRecovery } = this.#deps
    const { signal } = this.#closing
    while (!signal.aborted) {
      try {
        await clock.sleep(RETRY_MS, { signal })
        await probe()
      } catch (error: unknown) {
        log.debug({ reason: describeError(error) }, 'disk still refuses writes')
        continue
      }
      this.#recovery = undefined
      log.info({}, 'disk takes writes again')
      onRecovery()
      return
    }
  }
}
