import { raceAbort, ShoalError, type Clock } from '../../core/index.ts'
import { statusError, transportError } from '../net/failures.ts'
import type { MirrorMetrics } from './metrics.ts'
import type { PingOutcome, PingRecord } from './state.ts'

/** No host is given longer to answer a ping, however long it may take to connect. */
export const MAX_PING_MS = 5_000

/** One GET of the ping URL, and the status of its answer. Throws what the HTTP client throws; aborted: `signal.reason`. */
export type Ping = (options: { signal: AbortSignal }) => Promise<number>

/** Asks one host whether it is there, and remembers what it said last. */
export class Probe {
  readonly #clock: Clock
  readonly #metrics: Pick<MirrorMetrics, 'ping'>
  readonly #ping: Ping
  readonly #options: { readonly host: string; readonly isAlive: (status: number) => boolean }
  #last: PingRecord | undefined

  constructor(
    deps: { readonly clock: Clock; readonly metrics: Pick<MirrorMetrics, 'ping'>; readonly ping: Ping },
    options: { readonly host: string; readonly isAlive: (status: number) => boolean },
  ) {
    this.#clock = deps.clock
    this.#metrics = deps.metrics
    this.#ping = deps.ping
    this.#options = options
  }

  /** Undefined: it has not been asked yet. */
  get last(): PingRecord | undefined {
    return this.#last
  }

  /**
   * Resolves when the host has answered within `timeoutMs` as one that is alive. Throws ERR_UPSTREAM_TIMEOUT, ERR_UPSTREAM_TRANSPORT or
   * ERR_UPSTREAM_STATUS; aborted: `signal.reason`.
   */
  async run({ timeoutMs, signal }: { readonly timeoutMs: number; readonly signal: AbortSignal }): Promise<void> {
    const { host, isAlive } = this.#options
    signal.throwIfAborted()
    try {
      const status = await this.#within(Math.min(timeoutMs, MAX_PING_MS), signal)
      if (!isAlive(status)) throw statusError(host, status)
      this.#record('answered')
    } catch (error: unknown) {
      signal.throwIfAborted()
      const failure = transportError(error, host)
      this.#record(failure.code === 'ERR_UPSTREAM_TIMEOUT' ? 'timeout' : 'failed')
      throw failure
    }
  }

  async #within(timeoutMs: number, signal: AbortSignal): Promise<number> {
    const { host } = this.#options
    const abort = new AbortController()
    const answered = new AbortController()
    const onAbort = (): void => abort.abort(signal.reason)
    const onTimeout = (): void =>
      abort.abort(
        new ShoalError('ERR_UPSTREAM_TIMEOUT', `${host} did not answer a ping within ${timeoutMs} ms`, {
          details: { host },
        }),
      )
    signal.addEventListener('abort', onAbort, { once: true })
    this.#clock.sleep(timeoutMs, { signal: answered.signal }).then(onTimeout, () => undefined)
    try {
      return await raceAbort(this.#ping({ signal: abort.signal }), abort.signal)
    } finally {
      signal.removeEventListener('abort', onAbort)
      answered.abort()
    }
  }

  #record(outcome: PingOutcome): void {
    this.#last = { at: this.#clock.now(), outcome }
    this.#metrics.ping(outcome)
  }
}
