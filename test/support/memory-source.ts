import {
  ShoalError,
  type BlobInfo,
  type BlobKey,
  type BlobSource,
  type ByteRange,
  type Digest,
  type SourceOptions,
} from '../../src/core/index.ts'

const PIECE_BYTES = 64 * 1024

/** The simplest thing that keeps the contract of BlobSource: what others are measured against. */
export class MemorySource implements BlobSource {
  readonly name = 'memory'
  readonly #blobs: ReadonlyMap<Digest, Uint8Array>

  constructor(blobs: ReadonlyMap<Digest, Uint8Array>) {
    this.#blobs = blobs
  }

  stat(key: BlobKey, options: SourceOptions = {}): Promise<BlobInfo | undefined> {
    return settle(() => {
      options.signal?.throwIfAborted()
      const blob = this.#blobs.get(key.digest)
      return blob === undefined ? undefined : { size: blob.length }
    })
  }

  open(key: BlobKey, range: ByteRange, options: SourceOptions = {}): Promise<AsyncIterable<Uint8Array> | undefined> {
    return settle(() => {
      options.signal?.throwIfAborted()
      const blob = this.#blobs.get(key.digest)
      if (blob === undefined) return undefined
      if (range.end > blob.length) throw new ShoalError('ERR_UPSTREAM_BODY', 'the blob is shorter')
      return pieces(blob.subarray(range.start, range.end), options.signal)
    })
  }
}

/** What `work` returns or throws, as a promise. */
function settle<T>(work: () => T): Promise<T> {
  return new Promise(resolve => resolve(work()))
}

async function* pieces(bytes: Uint8Array, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array, void> {
  for (let offset = 0; offset < bytes.length; offset += PIECE_BYTES) {
    // A source hands over one piece at a time and can be aborted between any two.
    await Promise.resolve()
    signal?.throwIfAborted()
    yield bytes.slice(offset, offset + PIECE_BYTES)
  }
}
