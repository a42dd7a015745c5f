/** A reader that waited within this time is about to wait again: it takes what arrived in bursts. */
const LULL_MS = 100

/**
 * Who comes first at one registry: fetches that nobody waits for begin while no on-demand reader of any of its blobs does. Shared by the
 * fills of one registry.
 */
export class Precedence {
  #waiting = 0
  #waitedAt = -Infinity

  /** An on-demand reader waits for bytes, until it calls endWait(). */
  beginWait(): void {
    this.#waiting += 1
  }

  endWait(now: number): void {
    this.#waiting -= 1
    this.#waitedAt = now
  }

  /** Whether nobody has waited lately. */
  isFree(now: number): boolean {
    return this.#waiting === 0 && now - this.#waitedAt >= LULL_MS
  }
}
