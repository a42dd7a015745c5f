/** A reader that waited within this time is about to wait again: it takes what arrived in bursts. */
const LULL_MS = 100
/** Far fewer than the connections to one host, so that a reader who comes finds one. */
const MAX_UNDER_WAY = 8
/** Who waits in line asks far more often. */
const PLACE_MS = 500

/**
 * Who comes first at one registry: fetches that are not urgent begin while no on-demand reader of any of its blobs waits, a few at a time and
 * in turn. Shared by the fills of one registry.
 */
export class Precedence {
  #waiting = 0
  #waitedAt = -Infinity
  #underWay = 0
  /** Who would begin a fetch that is not urgent, in the order in which they came, with the time when they asked last. */
  readonly #line = new Map<object, number>()

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

  /**
   * Whether `who` may begin a fetch that is not urgent; then it calls end() later. If not, it keeps its place in line by asking again within
   * half a second.
   */
  begin(who: object, now: number): boolean {
    this.#line.set(who, now)
    let free = MAX_UNDER_WAY - this.#underWay
    for (const [next, askedAt] of this.#line) {
      if (free <= 0) return false
      if (next === who) break
      if (now - askedAt > PLACE_MS) this.#line.delete(next)
      else free -= 1
    }
    this.#line.delete(who)
    this.#underWay += 1
    return true
  }

  end(): void {
    this.#underWay -= 1
    // Whoever is still there asks again.
    if (this.#underWay === 0) this.#line.clear()
  }
}
