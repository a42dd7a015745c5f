interface Flight<T> {
  readonly promise: Promise<T>
  readonly controller: AbortController
  waiters: number
  /** The work has ended; its signal is left alone, because the result may still be tied to it. */
  done: boolean
}

/**
 * Many callers, one piece of work per key. Each caller keeps its own signal; the work's signal aborts only when the last caller has left.
 * A caller that arrives after everyone left starts new work. Results are not remembered: look in the cache again inside `work`.
 */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>()

  get size(): number {
    return this.#flights.size
  }

  async run(
    key: string,
    work: (signal: AbortSignal) => Promise<T>,
    options: { signal?: AbortSignal } = {},
  ): Promise<T> {
    options.signal?.throwIfAborted()
    const flight = this.#flights.get(key) ?? this.#start(key, work)
    flight.waiters += 1
    try {
      return await raceAbort(flight.promise, options.signal)
    } finally {
      flight.waiters -= 1
      if (flight.waiters === 0) {
        if (this.#flights.get(key) === flight) this.#flights.delete(key)
        if (!flight.done) flight.controller.abort(new DOMException('every caller has left', 'AbortError'))
      }
    }
  }

  #start(key: string, work: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const controller = new AbortController()
    const promise = work(controller.signal).finally(() => {
      flight.done = true
      if (this.#flights.get(key) === flight) this.#flights.delete(key)
    })
    // Every caller may have left by the time the work fails; the failure then belongs to nobody.
    promise.catch(() => undefined)
    const flight: Flight<T> = { promise, controller, waiters: 0, done: false }
    this.#flights.set(key, flight)
    return flight
  }
}

/** `promise`, or a rejection with `signal.reason` as soon as the signal aborts. The promise itself goes on. */
export function raceAbort<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise
  if (signal.aborted) return Promise.reject(signal.reason as Error)
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}
