import type { Clock } from '../../core/index.ts'

/** Nothing for this long, and the host is asked whether it is there. */
const STALL_MS = 1_000
/** For so long after it hung, it is asked as soon as somebody waits. */
const WARY_MS = 5_000

/** Somebody waits for headers, or for a piece of a body. */
export interface Wait {
  readonly since: number
}

export interface StallWatchDeps {
  readonly clock: Clock
  /** Resolves when the host answers a ping within `timeoutMs`. */
  readonly ping: (options: { readonly timeoutMs: number; readonly signal: AbortSignal }) => Promise<void>
  /** The host answers no ping, and sends nothing to anybody, while somebody waits. Has to end all waits. */
  readonly onHung: () => void
}

/**
 * Tells a host that hangs from one that is slow. Whoever has waited for STALL_MS causes a ping, which has as long again, and shortly after a hang
 * whoever waits causes one at once; there is never more than one ping in that time, however many wait. Owns at most one timer, and only
 * while somebody waits.
 */
export class StallWatch {
  readonly #deps: StallWatchDeps
  readonly #closing = new AbortController()
  /** In the order in which they began. */
  readonly #waits = new Set<Wait>()
  #watching = false
  /** How often the host has sent something. */
  #heard = 0
  #pingedAt = -Infinity
  #hungAt = -Infinity

  constructor(deps: StallWatchDeps) {
    this.#deps = deps
  }

  begin(): Wait {
    const wait = { since: this.#deps.clock.now() }
    this.#waits.add(wait)
    if (!this.#watching && !this.#closing.signal.aborted) {
      this.#watching = true
      // Rejects only when it has been closed.
      this.#watch(this.#closing.signal).catch(() => undefined)
    }
    return wait
  }

  end(wait: Wait): void {
    this.#waits.delete(wait)
  }

  /** The host has sent something, to whomever. */
  heard(): void {
    this.#heard += 1
  }

  /** Watches no longer. May be called again. */
  close(): void {
    this.#closing.abort()
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps
    for (let [oldest] = this.#waits; oldest !== undefined; [oldest] = this.#waits) {
      const now = clock.now()
      const patience = now - this.#hungAt < WARY_MS ? 0 : STALL_MS
      const due = Math.max(oldest.since + patience, this.#pingedAt + STALL_MS)
      if (now < due) {
        // A clock that was set back must not put the watch to sleep.
        await clock.sleep(Math.min(due - now, STALL_MS), { signal })
        continue
      }
      this.#pingedAt = now
      const heard = this.#heard
      const answered = await this.#answers(signal)
      // Whatever came meanwhile, to whomever, came from a host that is alive.
      if (!answered && heard === this.#heard && this.#waits.has(oldest)) this.#hangs()
    }
    this.#watching = false
  }

  #hangs(): void {
    this.#hungAt = this.#deps.clock.now()
    // Their ends are on the way: none of them is to cause one more ping.
    this.#waits.clear()
    this.#deps.onHung()
  }

  async #answers(signal: AbortSignal): Promise<boolean> {
    try {
      await this.#deps.ping({ timeoutMs: STALL_MS, signal })
      return true
    } catch {
      signal.throwIfAborted()
      return false
    }
  }
}
