interface Waiter {
  readonly amount: number
  readonly resolve: () => void
}

/**
 * Permits handed out in order of asking: connections, or bytes in flight. A request larger than the capacity is granted when everything
 * else has been returned, so it can never wait for ever.
 */
export class Limiter {
  readonly #capacity: number
  #used = 0
  readonly #queue: Waiter[] = []

  constructor(capacity: number) {
    this.#capacity = capacity
  }

  get used(): number {
    return this.#used
  }

  get waiting(): number {
    return this.#queue.length
  }

  /** Resolves with a release function, to be called once (more calls do nothing). Rejects with `signal.reason` when aborted while waiting. */
  async acquire(amount = 1, options: { signal?: AbortSignal } = {}): Promise<() => void> {
    const { signal } = options
    signal?.throwIfAborted()
    if (this.#queue.length === 0 && this.#fits(amount)) return this.#take(amount)
    await new Promise<void>((resolve, reject) => {
      const onAbort = (): void => {
        this.#queue.splice(this.#queue.indexOf(waiter), 1)
        reject(signal?.reason as Error)
        this.#drain()
      }
      const waiter: Waiter = {
        amount,
        resolve: () => {
          signal?.removeEventListener('abort', onAbort)
          resolve()
        },
      }
      this.#queue.push(waiter)
      signal?.addEventListener('abort', onAbort, { once: true })
    })
    return this.#releaser(amount)
  }

  #fits(amount: number): boolean {
    return this.#used === 0 || this.#used + amount <= this.#capacity
  }

  #take(amount: number): () => void {
    this.#used += amount
    return this.#releaser(amount)
  }

  #releaser(amount: number): () => void {
    let released = false
    return () => {
      if (released) return
      released = true
      this.#used -= amount
      this.#drain()
    }
  }

  /** Grants are counted here, in order, before the waiter runs, so nobody can slip in between. */
  #drain(): void {
    for (let next = this.#queue[0]; next !== undefined && this.#fits(next.amount); next = this.#queue[0]) {
      this.#queue.shift()
      this.#used += next.amount
      next.resolve()
    }
  }
}
