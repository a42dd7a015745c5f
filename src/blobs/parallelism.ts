import { CHUNK_BYTES } from '../core/index.ts'

/** Most connections that one blob's fill uses to one origin. */
const MAX_CONNECTIONS = 8
/** A rate is believed after this long, with the same number of connections busy all the while. */
const WINDOW_MS = 80
/** Twice the connections must bring at least this factor, or they are given up again. */
const WORTHWHILE = 1.25
/** After a fruitless attempt the next one waits this long. */
const RETRY_AFTER_MS = 30_000
/** A segment should keep its connection busy for about this long, so that the request's delay is small against it. */
const SEGMENT_SECONDS = 0.25
const MIN_SEGMENT_BYTES = CHUNK_BYTES
const MAX_SEGMENT_BYTES = 8 * CHUNK_BYTES

/**
 * Learns, for one origin, how many ranged connections are worth using at once and how long a ranged request should be. It climbs: the
 * number is doubled while that raises the total rate by a quarter, and taken back when it does not. What was learned serves the next blob.
 * A distant origin that gives so much per connection ends with several; one whose link or whose processor is the bound, with one.
 */
export class Parallelism {
  #level = 1
  /** Total rate at half of #level, in bytes/ms: what the present attempt must beat. Undefined: no attempt is under way. */
  #baseline: number | undefined
  #connectionRate = 0
  #noAttemptBefore = -Infinity
  #windowStart: number | undefined
  #windowBytes = 0

  /** Connections to use now. */
  get connections(): number {
    return this.#level
  }

  /** Bytes for the next ranged request, a multiple of the chunk. */
  get segmentBytes(): number {
    const wanted = this.#connectionRate * 1000 * SEGMENT_SECONDS
    const chunks = Math.round(wanted / CHUNK_BYTES) * CHUNK_BYTES
    return Math.min(MAX_SEGMENT_BYTES, Math.max(MIN_SEGMENT_BYTES, chunks))
  }

  /**
   * To be called for every piece received: `busy` connections were in use and somebody was waiting for the bytes, or was not (`hungry`).
   * Rates that a slow reader or a missing connection held down teach nothing, so they begin a new window.
   */
  received(bytes: number, now: number, busy: number, hungry: boolean): void {
    if (busy < this.#level || !hungry || this.#windowStart === undefined) {
      this.#windowStart = now
      this.#windowBytes = 0
      return
    }
    this.#windowBytes += bytes
    const elapsed = now - this.#windowStart
    if (elapsed < WINDOW_MS) return
    this.#learn(this.#windowBytes / elapsed, now)
    this.#windowStart = now
    this.#windowBytes = 0
  }

  #learn(rate: number, now: number): void {
    this.#connectionRate = rate / this.#level
    if (this.#baseline !== undefined && rate < this.#baseline * WORTHWHILE) {
      this.#level /= 2
      this.#connectionRate = rate / this.#level
      this.#baseline = undefined
      this.#noAttemptBefore = now + RETRY_AFTER_MS
      return
    }
    if (this.#level === MAX_CONNECTIONS || now < this.#noAttemptBefore) {
      this.#baseline = undefined
      return
    }
    this.#baseline = rate
    this.#level *= 2
  }
}
