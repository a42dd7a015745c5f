import type { StallWatch } from './stall-watch.ts'

export interface CallDeps {
  readonly watch: StallWatch
  /** Called once, when the call is over. */
  readonly onEnd: (call: WatchedCall) => void
}

/** One request under way at a watched host, until its answer or until the last byte of its body. Its signal is the caller's, or cut(). */
export class WatchedCall {
  readonly #deps: CallDeps
  readonly #caller: AbortSignal | undefined
  readonly #abort = new AbortController()
  readonly #onAbort: () => void
  #over = false

  constructor(deps: CallDeps, options: { readonly signal?: AbortSignal }) {
    this.#deps = deps
    this.#caller = options.signal
    this.#onAbort = () => {
      this.#abort.abort(this.#caller?.reason)
      this.end()
    }
    this.#caller?.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** For whoever does the work. */
  get signal(): AbortSignal {
    return this.#abort.signal
  }

  /** The caller has left. */
  get isAborted(): boolean {
    return this.#caller?.aborted === true
  }

  /** Ends the work with `error`, also when nobody waits for it just now: the next piece is then asked for in vain. */
  cut(error: Error): void {
    if (this.#over) return
    this.#abort.abort(error)
    this.end()
  }

  /** What `work` does, under the eyes of the watch. */
  async wait<T>(work: () => Promise<T>): Promise<T> {
    this.signal.throwIfAborted()
    const wait = this.#deps.watch.begin()
    try {
      const result = await work()
      this.#deps.watch.heard()
      return result
    } finally {
      this.#deps.watch.end(wait)
    }
  }

  /** May be called again. */
  end(): void {
    if (this.#over) return
    this.#over = true
    this.#caller?.removeEventListener('abort', this.#onAbort)
    this.#deps.onEnd(this)
  }
}
