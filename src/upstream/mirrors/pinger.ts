import { asError, raceAbort, type Clock } from '../../core/index.ts'

export interface PingerDeps {
  readonly clock: Clock
  /** Resolves when the host answers as it should. */
  readonly ping: (signal: AbortSignal) => Promise<void>
  /** Told of every ping that was not stopped; undefined: it was answered. May call stop(). */
  readonly onPing: (failure: Error | undefined) => void
  /** Told when `isPaused` has changed by itself. */
  readonly onPause: () => void
}

export interface PingerOptions {
  readonly intervalMs: number
  /** Without a wish for this long, pings pause until the next one. */
  readonly pauseElapsedMs: number
}

/** Pings one host again and again, one ping at a time, as long as somebody wants the host. Owns at most one timer; stop() ends it. */
export class Pinger {
  readonly #deps: PingerDeps
  readonly #options: PingerOptions
  #wantedAt: number
  #running: AbortController | undefined
  /** Set while paused. */
  #resume: (() => void) | undefined

  constructor(deps: PingerDeps, options: PingerOptions) {
    this.#deps = deps
    this.#options = options
    this.#wantedAt = deps.clock.now()
  }

  get isPaused(): boolean {
    return this.#resume !== undefined
  }

  /** Somebody wants the host. Pings that paused go on at once. */
  wanted(): void {
    this.#wantedAt = this.#deps.clock.now()
    this.#resume?.()
  }

  /** The first ping is sent now, or when an interval has passed. Does nothing while pings are under way. */
  start(first: 'now' | 'later'): void {
    if (this.#running !== undefined) return
    const running = new AbortController()
    this.#running = running
    // Rejects only when it has been stopped.
    this.#run(first, running.signal).catch(() => undefined)
  }

  /** Nothing is reported afterwards. start() begins anew. May be called again. */
  stop(): void {
    this.#running?.abort(new DOMException('no more pings are wanted', 'AbortError'))
    this.#running = undefined
    this.#resume = undefined
  }

  async #run(first: 'now' | 'later', signal: AbortSignal): Promise<void> {
    const { clock, onPing } = this.#deps
    const { intervalMs } = this.#options
    if (first === 'later') await clock.sleep(intervalMs, { signal })
    for (;;) {
      if (this.#isIdle()) await this.#pause(signal)
      const failure = await this.#ping(signal)
      signal.throwIfAborted()
      onPing(failure)
      await clock.sleep(intervalMs, { signal })
    }
  }

  async #ping(signal: AbortSignal): Promise<Error | undefined> {
    try {
      await this.#deps.ping(signal)
      return undefined
    } catch (error: unknown) {
      return asError(error)
    }
  }

  #isIdle(): boolean {
    return this.#deps.clock.now() - this.#wantedAt >= this.#options.pauseElapsedMs
  }

  async #pause(signal: AbortSignal): Promise<void> {
    const wish = new Promise<void>(resolve => (this.#resume = resolve))
    this.#deps.onPause()
    await raceAbort(wish, signal)
    this.#resume = undefined
    this.#deps.onPause()
  }
}
