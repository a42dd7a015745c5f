import type { Clock } from '../../core/index.ts'
import type { FailureKind, MirrorFailureKind } from './outcomes.ts'
import { Pinger } from './pinger.ts'
import type { MirrorState, MirrorStatus } from './state.ts'

/** The names are nydusd's. */
export interface HealthOptions {
  readonly healthCheckIntervalMs: number
  /** Failures after which the mirror is left alone for at least an interval. */
  readonly failureLimit: number
  /** Without a wish for this long, pings pause. */
  readonly healthCheckPauseElapsedMs: number
}

export interface HealthDeps {
  readonly clock: Clock
  /** Resolves when the mirror has answered. It has a time limit of its own. */
  readonly ping: (signal: AbortSignal) => Promise<void>
  /** Told of each failure that counted. */
  readonly onCounted: (kind: MirrorFailureKind) => void
  /** Told when the status has changed. */
  readonly onChange: (status: MirrorStatus) => void
}

export type HealthState = Pick<MirrorState, 'status' | 'failures' | 'failureLimit' | 'since' | 'lastError'>

/**
 * Whether one mirror is used. A failure makes it a suspect, which is pinged at once and used again as soon as it answers, its failures kept;
 * `failureLimit` of them make it down, and then it is pinged at intervals and begins anew with none when it answers. A suspect's failed ping
 * counts too. No ping is sent while it is healthy, nor while nobody wants it.
 */
export class MirrorHealth {
  readonly #deps: HealthDeps
  readonly #failureLimit: number
  readonly #pinger: Pinger
  #use: 'healthy' | 'suspect' | 'down' = 'healthy'
  #failures = 0
  #since: number
  #lastError: string | undefined
  #closed = false

  constructor(deps: HealthDeps, options: HealthOptions) {
    const { clock, ping } = deps
    this.#deps = deps
    this.#failureLimit = options.failureLimit
    this.#since = clock.now()
    this.#pinger = new Pinger(
      { clock, ping, onPing: failure => this.#pinged(failure), onPause: () => this.#changed() },
      { intervalMs: options.healthCheckIntervalMs, pauseElapsedMs: options.healthCheckPauseElapsedMs },
    )
  }

  get isUsable(): boolean {
    return this.#use === 'healthy'
  }

  get status(): MirrorStatus {
    return this.#pinger.isPaused ? 'paused' : this.#use
  }

  /** Somebody would like to use the mirror, whether or not it can be used. */
  wanted(): void {
    this.#pinger.wanted()
  }

  /** A request failed. It counts only while the mirror is healthy: what fails together with what made it a suspect is one failure. */
  failed(error: Error, kind: FailureKind): void {
    if (this.#closed || this.#use !== 'healthy') return
    this.#pinger.wanted()
    this.#pinger.start(this.#count(error, kind) === 'down' ? 'later' : 'now')
  }

  state(): HealthState {
    return {
      status: this.status,
      failures: this.#failures,
      failureLimit: this.#failureLimit,
      since: this.#since,
      ...(this.#lastError === undefined ? {} : { lastError: this.#lastError }),
    }
  }

  /** Ends the ping under way and sends no more. The state stays as it is. May be called again. */
  close(): void {
    this.#closed = true
    this.#pinger.stop()
  }

  #pinged(failure: Error | undefined): void {
    if (failure === undefined) {
      if (this.#use === 'down') this.#failures = 0
      this.#pinger.stop()
      this.#become('healthy')
    } else if (this.#use === 'suspect') {
      this.#count(failure, 'ping')
    } else {
      this.#lastError = failure.message
    }
  }

  #count(error: Error, kind: MirrorFailureKind): 'suspect' | 'down' {
    this.#failures += 1
    this.#lastError = error.message
    this.#deps.onCounted(kind)
    const use = this.#failures >= this.#failureLimit ? 'down' : 'suspect'
    this.#become(use)
    return use
  }

  #become(use: 'healthy' | 'suspect' | 'down'): void {
    if (use === this.#use) return
    this.#use = use
    this.#changed()
  }

  #changed(): void {
    this.#since = this.#deps.clock.now()
    this.#deps.onChange(this.status)
  }
}
