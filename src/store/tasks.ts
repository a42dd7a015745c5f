/** Work in the background that somebody must wait for before closing what it uses. */
export class Tasks {
  readonly #running = new Set<Promise<unknown>>()

  get size(): number {
    return this.#running.size
  }

  /** Remembers `work` until it is over, and returns it. */
  track<T>(work: Promise<T>): Promise<T> {
    this.#running.add(work)
    const done = (): void => {
      this.#running.delete(work)
    }
    work.then(done, done)
    return work
  }

  /** Resolves when nothing runs, including what was started meanwhile. Failures belong to who started the work. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running)
  }
}
