import type { WatchedCall } from './watched-call.ts'

export interface WatchedBodyDeps {
  readonly call: WatchedCall
  readonly pieces: AsyncIterable<Uint8Array>
  readonly onBytes: (bytes: number) => void
  /** The host failed to send it, or was cut. Not called when the caller has left. */
  readonly onFailure: (error: unknown) => void
}

type Result = IteratorResult<Uint8Array, undefined>

/** A watched host's body on its way to a reader. A wait for a piece is watched; a reader that does not ask for the next one waits for nothing. */
export class WatchedBody implements AsyncIterableIterator<Uint8Array, undefined> {
  readonly #deps: WatchedBodyDeps
  readonly #pieces: AsyncIterator<Uint8Array, unknown>
  #done = false

  constructor(deps: WatchedBodyDeps) {
    this.#deps = deps
    this.#pieces = deps.pieces[Symbol.asyncIterator]()
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async next(): Promise<Result> {
    if (this.#done) return { done: true, value: undefined }
    const { call, onBytes, onFailure } = this.#deps
    try {
      const result = await call.wait(() => this.#pieces.next())
      if (result.done !== true) {
        onBytes(result.value.length)
        return { done: false, value: result.value }
      }
    } catch (error: unknown) {
      this.#end()
      if (!call.isAborted) onFailure(error)
      throw error
    }
    this.#end()
    return { done: true, value: undefined }
  }

  async return(): Promise<Result> {
    if (!this.#done) {
      this.#end()
      await this.#pieces.return?.()
    }
    return { done: true, value: undefined }
  }

  #end(): void {
    this.#done = true
    this.#deps.call.end()
  }
}
