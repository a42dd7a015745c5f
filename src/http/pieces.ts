import { ShoalError, errorCode, type BlobKey, type ByteRange, type ErrorDetails } from '../core/index.ts'
import { presenceOf, type BlobReader, type OpenBlob, type Presence, type ReadOptions } from '../blobs/index.ts'
import { BufferPool } from './buffer-pool.ts'

/** One read and one write; also the block of the store, so that an aligned piece lies in one block. */
const PIECE_BYTES = 256 * 1024
const SMALL_BYTES = 64 * 1024

/** Some bytes to send. `release`, where present, is called when nobody reads them any more. */
export interface Piece {
  readonly bytes: Uint8Array
  readonly release?: () => void
}

export interface PieceOptions extends ReadOptions {
  /** No source is asked for what turns out not to be here. */
  readonly storedOnly: boolean
}

/** A range on its way out. */
export interface Body {
  readonly presence: Presence
  /** Milliseconds by where they were spent, as far as the pieces taken so far; `waited` were spent on the origin before. */
  timings(waited: number): { readonly store: number; readonly origin?: number }
  readonly pieces: AsyncGenerator<Piece, void, undefined>
}

/** Turns a range of a blob into pieces: hits in pooled buffers from the page cache, everything else through the blob reader. */
export class PieceSource {
  readonly #reader: BlobReader
  /** Small buffers stay in the processor's cache, large ones save calls. */
  readonly #small = new BufferPool({ bytes: SMALL_BYTES, keep: 64 })
  readonly #large = new BufferPool({ bytes: PIECE_BYTES, keep: 64 })

  constructor(deps: { reader: BlobReader }) {
    this.#reader = deps.reader
  }

  /** The whole range in one piece when it is short and lies in the page cache: no waiting, no turn of the event loop. */
  atOnce(blob: OpenBlob, range: ByteRange): Required<Piece> | undefined {
    const length = range.end - range.start
    return length > PIECE_BYTES ? undefined : this.#readNow(blob, range.start, length)
  }

  /** Undefined: no source has the blob. Nothing is read before the first piece is pulled. */
  async body(
    key: BlobKey,
    blob: OpenBlob | undefined,
    range: ByteRange,
    options: PieceOptions,
  ): Promise<Body | undefined> {
    const isHere = blob !== undefined && (options.storedOnly || presenceOf(blob, range) === 'hit')
    if (isHere && range.end > range.start) {
      const began = performance.now()
      return {
        presence: 'hit',
        timings: () => ({ store: performance.now() - began }),
        pieces: this.stored(key, blob, range, options),
      }
    }
    const stream = await this.#reader.stream(key, range, options)
    if (stream === undefined) return undefined
    const { presence, timings } = stream
    const spent = (waited: number) => ({ store: timings.store, origin: timings.origin + waited })
    return { presence, timings: spent, pieces: asPieces(stream) }
  }

  /** A range of a blob that is here: what the page cache has is read at once, the rest in the thread pool; what is gone after all (a bad block) comes from the sources. */
  async *stored(
    key: BlobKey,
    blob: OpenBlob,
    range: ByteRange,
    options: PieceOptions,
  ): AsyncGenerator<Piece, void, undefined> {
    using _hold = blob.hold()
    for (let position = range.start; position < range.end;) {
      const length = Math.min(PIECE_BYTES - (position % PIECE_BYTES), range.end - position)
      const piece = this.#readNow(blob, position, length) ?? (await readLater(blob, position, length, options))
      if (piece === undefined) {
        if (options.storedOnly) throw unavailable(`a part of ${key.digest} is not here any longer`, { absent: true })
        const stream = await this.#reader.stream(key, { start: position, end: range.end }, options)
        if (stream === undefined) throw unavailable(`no source has ${key.digest} any longer`)
        return yield* asPieces(stream)
      }
      yield piece
      position += length
    }
  }

  #readNow(blob: OpenBlob, position: number, length: number): Required<Piece> | undefined {
    const pool = length <= SMALL_BYTES ? this.#small : this.#large
    const buffer = pool.take()
    const bytes = buffer.subarray(0, length)
    if (blob.readNow(bytes, position)) return { bytes, release: () => pool.give(buffer) }
    pool.give(buffer)
    return undefined
  }
}

function unavailable(message: string, details: ErrorDetails = {}): ShoalError {
  return new ShoalError('ERR_BLOB_UNAVAILABLE', message, { details })
}

async function readLater(
  blob: OpenBlob,
  position: number,
  length: number,
  { signal }: ReadOptions,
): Promise<Piece | undefined> {
  try {
    const bytes = await blob.read(position, length, signal === undefined ? {} : { signal })
    return bytes === undefined ? undefined : { bytes }
  } catch (error: unknown) {
    // The reader knows how to do without the store.
    if (errorCode(error) === 'ERR_STORE_IO') return undefined
    throw error
  }
}

async function* asPieces(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Piece, void, undefined> {
  for await (const bytes of stream) yield { bytes }
}
