import fs from 'node:fs/promises'
import { ShoalError, type ByteRange } from '../../core/index.ts'
import { unreadable } from './file-size.ts'

const PIECE_BYTES = 256 * 1024

type Result = IteratorResult<Uint8Array, undefined>

/** The bytes of a range of a file, exactly. The file is opened by the first pull and closed at the end, at a failure, or when left early. */
export class FileRange implements AsyncIterableIterator<Uint8Array, undefined> {
  readonly #received: (bytes: number) => void
  readonly #file: string
  readonly #end: number
  readonly #signal: AbortSignal | undefined
  #position: number
  #handle: fs.FileHandle | undefined
  #done = false

  constructor(
    deps: { readonly received: (bytes: number) => void },
    options: { readonly file: string; readonly range: ByteRange; readonly signal?: AbortSignal | undefined },
  ) {
    this.#received = deps.received
    this.#file = options.file
    this.#position = options.range.start
    this.#end = options.range.end
    this.#signal = options.signal
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /** Throws ERR_UPSTREAM_BODY when the file is shorter than promised, ERR_UPSTREAM_TRANSPORT when the disk fails. */
  async next(): Promise<Result> {
    if (this.#done) return { done: true, value: undefined }
    if (this.#position === this.#end) return this.return()
    try {
      return { done: false, value: await this.#read() }
    } catch (error: unknown) {
      await this.return()
      throw this.#explain(error)
    }
  }

  async return(): Promise<Result> {
    this.#done = true
    const handle = this.#handle
    this.#handle = undefined
    await handle?.close()
    return { done: true, value: undefined }
  }

  async #read(): Promise<Uint8Array> {
    this.#signal?.throwIfAborted()
    const handle = (this.#handle ??= await fs.open(this.#file))
    const length = Math.min(PIECE_BYTES, this.#end - this.#position)
    // Never pooled: the piece belongs to the receiver.
    const buffer = Buffer.allocUnsafeSlow(length)
    const { bytesRead } = await handle.read(buffer, 0, length, this.#position)
    this.#signal?.throwIfAborted()
    if (bytesRead === 0) {
      const missing = this.#end - this.#position
      throw new ShoalError('ERR_UPSTREAM_BODY', `${this.#file} ended ${missing} bytes early`, {
        details: { file: this.#file, missing },
      })
    }
    this.#position += bytesRead
    this.#received(bytesRead)
    return bytesRead === length ? buffer : buffer.subarray(0, bytesRead)
  }

  #explain(error: unknown): unknown {
    if (error instanceof ShoalError || this.#signal?.aborted === true) return error
    return unreadable(this.#file, error)
  }
}
