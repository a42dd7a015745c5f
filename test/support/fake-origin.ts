import { createHash } from 'node:crypto'
import {
  formatReference,
  parseDigest,
  type BegunBlob,
  type BlobInfo,
  type BlobKey,
  type ByteRange,
  type Digest,
  type ListingAnswer,
  type Manifest,
  type ManifestInfo,
  type ManifestKey,
  type ManifestOptions,
  type Origin,
  type SourceOptions,
  type Visibility,
} from '../../src/core/index.ts'

const PIECE_BYTES = 64 * 1024

export interface SentPiece {
  readonly range: ByteRange
  /** Offset in the blob of the piece about to be sent. */
  readonly offset: number
}

export function digestOf(bytes: Uint8Array, algorithm: 'sha256' | 'sha512' = 'sha256'): Digest {
  return parseDigest(`${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`)
}

/**
 * A fake of an origin, in memory: it counts what it sends and does what a test tells it to before every answer and every piece. A fake,
 * and not a registry, because the tests that use it decide when each piece arrives.
 */
export class FakeOrigin implements Origin {
  readonly name: string
  readonly blobs = new Map<Digest, Uint8Array>()
  readonly tags = new Map<string, { digest: Digest; mediaType: string }>()
  /** Bytes handed over, by digest. */
  readonly sentBytes = new Map<Digest, number>()
  readonly opened: ByteRange[] = []
  readonly stats: BlobKey[] = []
  manifestRequests = 0
  visibility: Visibility | undefined
  readsWhole: () => boolean = () => false
  /** May throw, or wait, before stat, open and manifest calls. */
  beforeAnswer: (call: 'stat' | 'open' | 'manifest', options: SourceOptions) => Promise<void> | void = () => undefined
  /** May throw, or wait, before every piece. */
  beforePiece: (piece: SentPiece, signal: AbortSignal | undefined) => Promise<void> | void = () => undefined

  constructor(name = 'fake') {
    this.name = name
  }

  /** Adds a blob and returns its digest; `claimed` makes it a lie. */
  add(bytes: Uint8Array, claimed: Digest = digestOf(bytes)): Digest {
    this.blobs.set(claimed, bytes)
    return claimed
  }

  tag(tag: string, body: Uint8Array, mediaType = 'application/vnd.oci.image.manifest.v1+json'): Digest {
    const digest = this.add(body)
    this.tags.set(tag, { digest, mediaType })
    this.tags.set(digest, { digest, mediaType })
    return digest
  }

  async stat(key: BlobKey, options: SourceOptions = {}): Promise<BlobInfo | undefined> {
    this.stats.push(key)
    await this.beforeAnswer('stat', options)
    const bytes = this.blobs.get(key.digest)
    if (bytes === undefined) return undefined
    return { size: bytes.length, ...(this.visibility === undefined ? {} : { visibility: this.visibility }) }
  }

  async open(
    key: BlobKey,
    range: ByteRange,
    options: SourceOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    await this.beforeAnswer('open', options)
    const bytes = this.blobs.get(key.digest)
    if (bytes === undefined) return undefined
    this.opened.push(range)
    return this.#send(key.digest, bytes, range, options.signal)
  }

  /** Set by tests of sources that tell the size and send the first bytes in one answer. */
  begin?: (key: BlobKey, range: ByteRange, options?: SourceOptions) => Promise<BegunBlob | undefined>

  /** The usual implementation of `begin`. */
  readonly beginHere = async (
    key: BlobKey,
    range: ByteRange,
    options: SourceOptions = {},
  ): Promise<BegunBlob | undefined> => {
    await this.beforeAnswer('open', options)
    const bytes = this.blobs.get(key.digest)
    if (bytes === undefined) return undefined
    const cut = { start: Math.min(range.start, bytes.length), end: Math.min(range.end, bytes.length) }
    this.opened.push(cut)
    return { info: { size: bytes.length }, range: cut, body: this.#send(key.digest, bytes, cut, options.signal) }
  }

  async statManifest(key: ManifestKey, options: ManifestOptions = {}): Promise<ManifestInfo | undefined> {
    this.manifestRequests += 1
    await this.beforeAnswer('manifest', options)
    const found = this.tags.get(formatReference(key.reference))
    const body = found === undefined ? undefined : this.blobs.get(found.digest)
    if (found === undefined || body === undefined) return undefined
    return { ...found, size: body.length, ...(this.visibility === undefined ? {} : { visibility: this.visibility }) }
  }

  async getManifest(key: ManifestKey, options: ManifestOptions = {}): Promise<Manifest | undefined> {
    const info = await this.statManifest(key, options)
    const body = info === undefined ? undefined : this.blobs.get(info.digest)
    return info === undefined || body === undefined ? undefined : { ...info, body }
  }

  list(): Promise<ListingAnswer> {
    const body = Buffer.from(JSON.stringify({ name: 'fake', tags: [...this.tags.keys()] }))
    return Promise.resolve({ status: 200, headers: { 'content-type': 'application/json' }, body })
  }

  async *#send(
    digest: Digest,
    bytes: Uint8Array,
    range: ByteRange,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Uint8Array> {
    for (let offset = range.start; offset < range.end; offset += PIECE_BYTES) {
      await this.beforePiece({ range, offset }, signal)
      signal?.throwIfAborted()
      const piece = bytes.slice(offset, Math.min(range.end, offset + PIECE_BYTES))
      this.sentBytes.set(digest, (this.sentBytes.get(digest) ?? 0) + piece.length)
      yield piece
    }
  }
}
