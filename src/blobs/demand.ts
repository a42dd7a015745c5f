import type { BlobKey } from '../core/index.ts'
import type { Wish } from './plan.ts'

/** How far ahead of a reader the first fetches may begin; it doubles for a reader that keeps waiting for bytes. */
const FIRST_WINDOW_BYTES = 8 * 1024 * 1024

/**
 * How much a read matters. `demand`: somebody waits for these bytes. `prefetch`: they may be wanted later, so that they stand back while an
 * on-demand reader of the same registry waits.
 */
export type Urgency = 'demand' | 'prefetch'

export interface DemandOptions {
  readonly key: BlobKey
  readonly start: number
  readonly end: number
  /** Nobody waits for these bytes: they are fetched when nothing else is wanted. */
  readonly background: boolean
  readonly authorization?: string | undefined
  /** Default: `demand`. */
  readonly urgency?: Urgency | undefined
}

/** One reader's, or one prefetch's, place in a fill. Made and changed by BlobFill only. */
export class Demand implements Wish {
  readonly key: BlobKey
  readonly authorization: string | undefined
  readonly background: boolean
  readonly urgency: Urgency
  readonly start: number
  readonly end: number
  position: number
  window = FIRST_WINDOW_BYTES
  /** Why its fetch failed; its reader is told at its next step. */
  failure: Error | undefined
  /** When it last got on; clock milliseconds. */
  progressAt = 0
  /** Since when it has had nothing because its source hangs; clock milliseconds. */
  hungSince: number | undefined
  #grownAt: number

  constructor(options: DemandOptions) {
    this.key = options.key
    this.authorization = options.authorization
    this.background = options.background
    this.urgency = options.urgency ?? 'demand'
    this.start = options.start
    this.position = options.start
    this.end = options.end
    this.#grownAt = options.start
  }

  /** The reader waits for bytes that are on their way: it is faster than the source, so fetches may run further ahead. */
  grow(limit: number): void {
    if (this.window >= limit || this.position - this.#grownAt < this.window / 2) return
    this.window = Math.min(limit, this.window * 2)
    this.#grownAt = this.position
  }

  /** Whether any byte of start ... end-1 is still wanted. */
  wants(start: number, end: number): boolean {
    return this.position < end && start < this.end
  }
}
