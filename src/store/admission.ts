import type { Clock } from '../core/index.ts'

/** The hard limit lies this much above the soft one, so that a fill under way seldom meets it. */
const SLACK_SHARE = 0.05
const SLACK_MIN_BYTES = 16 * 1024 * 1024

/** How old the disk's own figure of free bytes may be. */
export const FREE_MAX_AGE_MS = 1000

export interface AdmissionDeps {
  readonly clock: Clock
  /** Bytes that the disk has for us; undefined: it cannot be asked. */
  readonly freeBytes: () => Promise<number | undefined>
  /** More is used than the soft limit allows. Called often; must return at once. */
  readonly onPressure: () => void
}

export interface AdmissionOptions {
  readonly maxBytes: number
  readonly minFreeBytes: number
}

/**
 * The store's account of bytes. Every byte is reserved, then present, then pending until its deletion is done; all three count as used.
 * Above `softLimit` blobs are evicted, above `hardLimit` nothing is let in. `minFreeBytes` of the disk are never knowingly taken.
 */
export class Admission {
  readonly #deps: AdmissionDeps
  readonly #options: AdmissionOptions
  #present = 0
  #reserved = 0
  #pending = 0
  /** What the disk could hold of ours in all; undefined: not known. */
  #room: number | undefined
  #free: number | undefined
  #askedAt = Number.NEGATIVE_INFINITY
  #asking: Promise<void> | undefined

  constructor(deps: AdmissionDeps, options: AdmissionOptions) {
    this.#deps = deps
    this.#options = options
  }

  get present(): number {
    return this.#present
  }

  get reserved(): number {
    return this.#reserved
  }

  get pending(): number {
    return this.#pending
  }

  get used(): number {
    return this.#present + this.#reserved + this.#pending
  }

  /** Free bytes of the disk, at most about a second old once something is reserved. */
  get freeBytes(): number | undefined {
    return this.#free
  }

  get softLimit(): number {
    const { maxBytes } = this.#options
    if (this.#room === undefined) return maxBytes
    return Math.max(
      0,
      Math.min(maxBytes, this.#room - Math.min(slackOf(maxBytes), Math.ceil(this.#room * SLACK_SHARE))),
    )
  }

  get hardLimit(): number {
    const { maxBytes } = this.#options
    return Math.max(0, Math.min(maxBytes + slackOf(maxBytes), this.#room ?? Number.POSITIVE_INFINITY))
  }

  /** Bytes found present at start. */
  start(present: number): void {
    this.#present = present
  }

  /** False: they would not fit below the hard limit. */
  reserve(bytes: number): boolean {
    this.#refreshIfOld()
    const fits = this.used + bytes <= this.hardLimit
    if (fits) this.#reserved += bytes
    if (this.used > this.softLimit) this.#deps.onPressure()
    return fits
  }

  giveBack(bytes: number): void {
    this.#reserved -= bytes
  }

  /** Reserved bytes are on the disk now. */
  written(bytes: number): void {
    this.#reserved -= bytes
    this.#present += bytes
  }

  /** Present bytes are no longer: a block that was disproven, or bytes that are about to be deleted and then erased(). */
  forgotten(bytes: number): void {
    this.#present -= bytes
  }

  condemned(bytes: number): void {
    this.#present -= bytes
    this.#pending += bytes
  }

  erased(bytes: number): void {
    this.#pending -= bytes
  }

  /** Asks the disk for its free bytes now. Concurrent calls share one question. */
  refresh(): Promise<void> {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined
    })
    return this.#asking
  }

  get #onDisk(): number {
    return this.#present + this.#pending
  }

  #refreshIfOld(): void {
    // Never rejects: a disk that cannot be asked is an answer too.
    if (this.#deps.clock.now() - this.#askedAt >= FREE_MAX_AGE_MS) void this.refresh()
  }

  async #ask(): Promise<void> {
    this.#askedAt = this.#deps.clock.now()
    const before = this.#onDisk
    const free = await this.#deps.freeBytes()
    // What was written or deleted while the disk was asked may or may not be in its figure. Erring on the large side costs little, for
    // it is asked again soon; erring on the small side would evict for nothing.
    const ours = Math.max(before, this.#onDisk)
    this.#free = free
    this.#room = free === undefined ? undefined : ours + free - this.#options.minFreeBytes
    if (this.used > this.softLimit) this.#deps.onPressure()
  }
}

function slackOf(maxBytes: number): number {
  return Math.max(SLACK_MIN_BYTES, Math.ceil(maxBytes * SLACK_SHARE))
}
