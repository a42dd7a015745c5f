import { backoffDelay, isHang, parseRetryAfter, ShoalError, type Clock } from '../../core/index.ts'
import type { RetryCause, UpstreamMetrics } from '../metrics.ts'

const BACKOFF = { baseMs: 100, maxMs: 2_000 }
/** What one operation is willing to wait because an origin asked it to. Beyond that the client had better hear of it. */
const MAX_RETRY_AFTER_MS = 10_000
/** A body that came this far since it last failed has earned its attempts back. */
const PROGRESS_BYTES = 1024 * 1024
/** The origin says that it will not ever do this, rather than that it cannot now; 508 is what a daemon says that is its own origin. */
const NOT_IMPLEMENTED = new Set([501, 505, 508])
/** Certificates do not get better by asking again. */
const CERTIFICATE = /^(?:CERT_|ERR_TLS_|ERR_SSL_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|EPROTO)/

/** The attempts that one operation has: a request until its headers, then the same body until its end. */
export class Retries {
  readonly #clock: Clock
  readonly #metrics: UpstreamMetrics
  readonly #limit: number
  #used = 0
  #waitLeftMs = MAX_RETRY_AFTER_MS
  #progress = 0

  constructor(
    deps: { readonly clock: Clock; readonly metrics: UpstreamMetrics },
    options: { readonly retries: number },
  ) {
    this.#clock = deps.clock
    this.#metrics = deps.metrics
    this.#limit = options.retries
  }

  /** Runs `attempt` until it succeeds or fails in a way, or as often, that another attempt is not worth it. */
  async run<T>(attempt: () => Promise<T>, options: { signal?: AbortSignal | undefined } = {}): Promise<T> {
    for (;;) {
      try {
        return await attempt()
      } catch (error: unknown) {
        await this.pause(error, options)
      }
    }
  }

  /** Resolves when it is time for the next attempt. Throws `error` when there is to be none, `signal.reason` when aborted. */
  async pause(error: unknown, options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    const { signal } = options
    signal?.throwIfAborted()
    const cause = retryCause(error)
    if (cause === undefined || this.#used >= this.#limit) throw error
    const asked = retryAfterMs(error, this.#clock.now()) ?? 0
    if (asked > this.#waitLeftMs) throw error
    this.#waitLeftMs -= asked
    const delay = asked + backoffDelay(this.#used, this.#clock.random(), BACKOFF)
    this.#used += 1
    this.#progress = 0
    this.#metrics.retries.inc({ cause })
    await this.#clock.sleep(delay, signal === undefined ? {} : { signal })
  }

  /** Bytes by which the body got on. */
  received(bytes: number): void {
    this.#progress += bytes
    if (this.#progress >= PROGRESS_BYTES) this.#used = 0
  }
}

/** Undefined: the same request would fail in the same way. */
function retryCause(error: unknown): RetryCause | undefined {
  if (!(error instanceof ShoalError)) return undefined
  const { details } = error
  switch (error.code) {
    case 'ERR_UPSTREAM_TIMEOUT':
      // A host that does not even answer a ping will not answer the same request either.
      return isHang(error) ? undefined : 'timeout'
    case 'ERR_UPSTREAM_TRANSPORT':
      return CERTIFICATE.test(String(details['cause'])) ? undefined : 'transport'
    case 'ERR_UPSTREAM_BODY':
      return details['truncated'] === true ? 'body' : undefined
    case 'ERR_UPSTREAM_STATUS': {
      const status = Number(details['status'])
      if (status === 429) return 'throttled'
      return status >= 500 && !NOT_IMPLEMENTED.has(status) ? 'status' : undefined
    }
    default:
      return undefined
  }
}

function retryAfterMs(error: unknown, now: number): number | undefined {
  const header = error instanceof ShoalError ? error.details['retryAfter'] : undefined
  return typeof header === 'string' ? parseRetryAfter(header, now) : undefined
}
