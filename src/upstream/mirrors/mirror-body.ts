import type { MirrorCall } from './call.ts'

export interface MirrorBodyDeps {
  readonly call: MirrorCall
  readonly pieces: AsyncIterable<Uint8Array>
  readonly onBytes: (bytes: number) => void
  /** The call failed, or was aborted, with this. */
  readonly onFailure: (error: unknown) => void
}

type Result = IteratorResult<Uint8Array, undefined>

/** A mirror's body on its way to a reader. A wait for a piece is watched; a reader that does not ask for the next one waits for nothing. */
export class MirrorBody implements AsyncIterableIterator<Uint8Array, undefined> {
  readonly #deps: MirrorBodyDeps
  readonly #pieces: AsyncIterator<Uint8Array, unknown>
  #done = false

  constructor(deps: MirrorBodyDeps) {
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
      onFailure(error)
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
