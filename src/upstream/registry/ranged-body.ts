import { rangeLength, type ByteRange } from '../../core/index.ts'
import { bodyError, transportError } from '../net/failures.ts'
import type { Retries } from './retry.ts'
import { discard, drain, type ResponseBody } from '../net/transport.ts'

/** One answer whose headers promise the bytes of a range. */
export interface BodyAttempt {
  readonly body: ResponseBody
  readonly host: string
  /** Bytes before the range, to be thrown away: the host ignores Range. */
  readonly skip: number
  /** Bytes may follow the range; they are not read. Otherwise one byte more is an error. */
  readonly open: boolean
}

export interface RangedBodyDeps {
  readonly retries: Retries
  /** Asks for the rest of the range. Throws when that fails. */
  readonly reopen: (range: ByteRange) => Promise<BodyAttempt>
  /** Told of every byte off the wire, thrown away or not. */
  readonly received: (bytes: number) => void
}

type Result = IteratorResult<Uint8Array, undefined>

/**
 * The bytes of one range, exactly: a body that ends early is resumed at the next byte, one that is too long is an error. Pieces are
 * handed on as they come off the wire, one per pull, so a slow reader slows the origin. Leaving early closes the connection.
 */
export class RangedBody implements AsyncIterableIterator<Uint8Array, undefined> {
  readonly #deps: RangedBodyDeps
  readonly #signal: AbortSignal | undefined
  readonly #range: ByteRange
  #position: number
  #attempt: BodyAttempt
  #pieces: AsyncIterator<Uint8Array, unknown>
  #skip: number
  #done = false

  constructor(
    deps: RangedBodyDeps,
    options: { readonly range: ByteRange; readonly first: BodyAttempt; readonly signal?: AbortSignal | undefined },
  ) {
    this.#deps = deps
    this.#range = options.range
    this.#signal = options.signal
    this.#position = options.range.start
    this.#attempt = options.first
    this.#pieces = piecesOf(options.first)
    this.#skip = options.first.skip
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async next(): Promise<Result> {
    if (this.#done) return { done: true, value: undefined }
    try {
      const piece = await this.#readOn()
      if (piece !== undefined) return { done: false, value: piece }
    } catch (error: unknown) {
      this.#done = true
      discard(this.#attempt.body)
      throw error
    }
    this.#done = true
    return { done: true, value: undefined }
  }

  return(): Promise<Result> {
    if (!this.#done) {
      this.#done = true
      const { body, open } = this.#attempt
      if (this.#position === this.#range.end && !open) drain(body)
      else discard(body)
    }
    return Promise.resolve({ done: true, value: undefined })
  }

  async #readOn(): Promise<Uint8Array | undefined> {
    for (;;) {
      try {
        return await this.#read()
      } catch (error: unknown) {
        await this.#resume(error)
      }
    }
  }

  /** The next piece of the range. Undefined at its end. */
  async #read(): Promise<Uint8Array | undefined> {
    const { body, host, open } = this.#attempt
    for (;;) {
      if (open && this.#position === this.#range.end) {
        discard(body)
        return undefined
      }
      const piece = await this.#pull()
      if (piece === undefined) {
        const missing = this.#range.end - this.#position
        if (missing === 0) return undefined
        throw bodyError(host, `ended ${missing} bytes early`, { truncated: true, missing })
      }
      const wanted = this.#take(piece)
      if (wanted.length > 0) return wanted
    }
  }

  /** One piece off the wire. Undefined when there is no more. */
  async #pull(): Promise<Uint8Array | undefined> {
    this.#signal?.throwIfAborted()
    try {
      const result = await this.#pieces.next()
      return result.done === true ? undefined : result.value
    } catch (error: unknown) {
      this.#signal?.throwIfAborted()
      // Every byte has arrived; only the end of the message was wrong.
      if (this.#position === this.#range.end) return undefined
      throw transportError(error, this.#attempt.host)
    }
  }

  /** What of a piece off the wire belongs to the range. */
  #take(piece: Uint8Array): Uint8Array {
    const { host, open } = this.#attempt
    const { end } = this.#range
    this.#deps.received(piece.length)
    const skipped = Math.min(this.#skip, piece.length)
    this.#skip -= skipped
    const wanted = skipped === 0 ? piece : piece.subarray(skipped)
    const left = end - this.#position
    if (wanted.length > left && !open)
      throw bodyError(host, `sent more than the ${rangeLength(this.#range)} bytes asked for`)
    const taken = wanted.length > left ? wanted.subarray(0, left) : wanted
    this.#position += taken.length
    // An attempt that had to begin at byte 0 again has paid for its progress with all that came before.
    if (this.#attempt.skip === 0) this.#deps.retries.received(taken.length)
    return taken
  }

  /** Goes on from the next byte with a new answer. Throws when the attempts are used up, or the failure is not of that kind. */
  async #resume(failure: unknown): Promise<void> {
    discard(this.#attempt.body)
    for (let reason = failure; ;) {
      await this.#deps.retries.pause(reason, { signal: this.#signal })
      try {
        this.#use(await this.#deps.reopen({ start: this.#position, end: this.#range.end }))
        return
      } catch (error: unknown) {
        reason = error
      }
    }
  }

  #use(attempt: BodyAttempt): void {
    this.#attempt = attempt
    this.#pieces = piecesOf(attempt)
    this.#skip = attempt.skip
  }
}

function piecesOf({ body }: BodyAttempt): AsyncIterator<Uint8Array, unknown> {
  return (body as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]()
}
