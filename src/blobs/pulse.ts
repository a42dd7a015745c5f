import { raceAbort } from '../core/index.ts'

/** Something changed: wakes everyone who waits, and costs nothing while nobody does. */
export class Pulse {
  #resolve: (() => void) | undefined
  #promise: Promise<void> | undefined

  get waiting(): boolean {
    return this.#promise !== undefined
  }

  /** Resolves at the next beat; rejects with `signal.reason` when aborted first. */
  wait(signal?: AbortSignal): Promise<void> {
    this.#promise ??= new Promise(resolve => (this.#resolve = resolve))
    return raceAbort(this.#promise, signal)
  }

  beat(): void {
    const resolve = this.#resolve
    this.#promise = undefined
    this.#resolve = undefined
    resolve?.()
  }
}
