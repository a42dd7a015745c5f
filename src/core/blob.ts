import type { Digest } from './digest.ts'
import type { ManifestReference } from './names.ts'
import type { ByteRange } from './range.ts'

/** Who a blob is, and where it may be asked for. `registry` is a key of the configured table, never an address to dial. */
export interface BlobKey {
  readonly digest: Digest
  readonly registry: string
  readonly repository: string
}

/**
 * By what right something was read at the origin: `public`, without any credential; `shared`, with the node's own; `private`, with the
 * credential that the caller sent along.
 */
export type Visibility = 'public' | 'shared' | 'private'

export interface BlobInfo {
  /** Bytes. */
  readonly size: number
  readonly mediaType?: string
  /** Absent: the source does not know about rights (a directory, a test); treated as `shared`. */
  readonly visibility?: Visibility
}

export interface SourceOptions {
  readonly signal?: AbortSignal
  /** The caller's own Authorization header. Tried only where neither nobody's nor the node's credential suffices. Never logged or stored. */
  readonly authorization?: string
}

/** A blob, and its first bytes wanted, which came with the news that it exists. */
export interface BegunBlob {
  readonly info: BlobInfo
  /** What the body will yield: exactly these bytes, or it throws. May be empty. */
  readonly range: ByteRange
  /** As from BlobSource.open(). To be iterated, or returned from, once. */
  readonly body: AsyncIterable<Uint8Array>
}

/**
 * Anything that can stream a range of a blob. Safe to call concurrently. Three outcomes, never mixed: absent (`undefined`), failed (a
 * ShoalError), aborted (`signal.reason`, untouched).
 */
export interface BlobSource {
  /** For logs, metrics and the index: a short stable name such as `registry:docker.io`. */
  readonly name: string
  /** Undefined: this source does not have the blob. */
  stat(key: BlobKey, options?: SourceOptions): Promise<BlobInfo | undefined>
  /**
   * Resolves when the source has agreed to send (its headers are in). The iterable yields exactly range.end - range.start bytes, or
   * throws; pieces are never empty and belong to the receiver. Leaving the iteration early releases the connection. The iterable may be
   * iterated once. `range` is not empty.
   */
  open(key: BlobKey, range: ByteRange, options?: SourceOptions): Promise<AsyncIterable<Uint8Array> | undefined>
  /**
   * stat() and open() in one request, for a blob whose size is not known yet: the end of `range`, which may be Infinity, is cut to the
   * size, and nothing is left of a range that lies beyond it. Undefined: this source does not have the blob. A source without this
   * method is asked by the other two.
   */
  begin?(key: BlobKey, range: ByteRange, options?: SourceOptions): Promise<BegunBlob | undefined>
  /**
   * Whether this source has to send everything before the range, to be thrown away (a server that ignores Range). The blob is then
   * better read once from its beginning. Absent: it does not.
   */
  readsWhole?(key: BlobKey): boolean
}

/** A manifest as an origin names it. */
export interface ManifestKey {
  readonly registry: string
  readonly repository: string
  readonly reference: ManifestReference
}

export interface ManifestOptions extends SourceOptions {
  /** The client's Accept header, passed on as it is; absent: all types that Shoal knows. */
  readonly accept?: string
}

/** What an origin says of a manifest without its body. */
export interface ManifestInfo {
  readonly digest: Digest
  readonly mediaType: string
  /** Bytes of the body. */
  readonly size: number
  readonly visibility?: Visibility
}

export interface Manifest extends ManifestInfo {
  /** Verified against `digest` by the source; at most MAX_MANIFEST_BYTES. */
  readonly body: Uint8Array
}

/**
 * Bytes. A larger blob is a lie, and would cost whoever plans for it: its block map alone takes more than 56 MiB. No registry takes layers
 * anywhere near as large.
 */
export const MAX_BLOB_BYTES = 2 * 1024 ** 4

/** Larger manifests are refused (the distribution spec asks registries to accept 4 MiB). */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024

/** Media types sent in Accept when the client sent none: what containerd, podman and docker ask for. */
export const MANIFEST_TYPES: readonly string[] = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
]

/** A pull-side listing that is passed through: `tags/list` or `referrers/<digest>`. */
export interface ListingRequest {
  readonly registry: string
  readonly repository: string
  readonly listing: { readonly kind: 'tags' } | { readonly kind: 'referrers'; readonly digest: Digest }
  /** The client's query string without `?` and without `ns`; '' when none. */
  readonly query: string
}

/** An answer that is passed on as it came: status, the few headers that matter to a client, and the body (at most MAX_LISTING_BYTES). */
export interface ListingAnswer {
  readonly status: number
  /** Lower-case names: content-type, link, oci-filters-applied, docker-content-digest ... */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
}

export const MAX_LISTING_BYTES = 16 * 1024 * 1024

/** The server that owns blobs. A blob source that also answers for manifests and listings. */
export interface Origin extends BlobSource {
  /** Like HEAD. Undefined: unknown there. */
  statManifest(key: ManifestKey, options?: ManifestOptions): Promise<ManifestInfo | undefined>
  getManifest(key: ManifestKey, options?: ManifestOptions): Promise<Manifest | undefined>
  list(request: ListingRequest, options?: SourceOptions): Promise<ListingAnswer>
}
