import {
  BLOCK_BYTES,
  MAX_MANIFEST_BYTES,
  ShoalError,
  SingleFlight,
  blockCount,
  describeError,
  errorCode,
  formatReference,
  type BlobKey,
  type Clock,
  type Digest,
  type Logger,
  type Manifest,
  type ManifestInfo,
  type ManifestKey,
  type ManifestOptions,
} from '../core/index.ts'
import type { ChunkStore } from '../store/index.ts'
import type { Access } from './access.ts'
import type { BlobMetrics } from './metrics.ts'
import { isUnreachable, originOrThrow, type Sources } from './sources.ts'

export interface ManifestReaderDeps {
  readonly store: ChunkStore
  readonly access: Access
  readonly sources: Sources
  readonly metrics: BlobMetrics
  readonly log: Logger
  readonly clock: Clock
}

export interface ManifestReaderOptions {
  /** A tag's answer is given from the cache for this long before the origin is asked again. */
  readonly tagTtlMs: number
  /** Whether a tag's last known manifest is served while the origin cannot be asked. */
  readonly serveStale: boolean
}

export interface ManifestAnswer extends Manifest {
  /** From the cache without asking the origin, after asking it, from the origin itself, or from the cache because it could not be asked. */
  readonly from: 'cache' | 'revalidated' | 'origin' | 'stale'
}

interface Cached extends ManifestInfo {
  readonly checkedAt: number
}

/**
 * Manifests by tag and digest. By digest they never change and are kept like blobs; a tag is asked for again when its time is over, and
 * answered from the cache while the origin cannot be asked. Callers see only what they could have pulled themselves.
 */
export class ManifestReader {
  readonly #deps: ManifestReaderDeps
  readonly #options: ManifestReaderOptions
  readonly #flights = new SingleFlight<ManifestAnswer | undefined>()

  constructor(deps: ManifestReaderDeps, options: ManifestReaderOptions) {
    this.#deps = deps
    this.#options = options
  }

  /** Undefined: the origin does not have it. */
  async get(key: ManifestKey, options: ManifestOptions = {}): Promise<ManifestAnswer | undefined> {
    const { signal, ...rest } = options
    const cached = this.#cached(key, options)
    if (cached !== undefined && this.#isFresh(key, cached) && this.#access(key, cached, options) === 'allowed') {
      const body = await this.#body(cached.digest, options)
      if (body !== undefined) return { ...cached, size: body.length, body, from: 'cache' }
    }
    const name = [
      key.registry,
      key.repository,
      formatReference(key.reference),
      options.accept ?? '',
      options.authorization ?? '',
    ]
    return this.#flights.run(name.join('\0'), work => this.#ask(key, cached, { ...rest, signal: work }), {
      ...(signal === undefined ? {} : { signal }),
    })
  }

  async #ask(
    key: ManifestKey,
    cached: Cached | undefined,
    options: ManifestOptions,
  ): Promise<ManifestAnswer | undefined> {
    try {
      const unchanged = cached === undefined ? undefined : await this.#revalidate(key, cached, options)
      return unchanged ?? (await this.#fetch(key, options))
    } catch (error: unknown) {
      options.signal?.throwIfAborted()
      const stale = cached !== undefined && this.#options.serveStale && isUnreachable(error)
      if (!stale || this.#access(key, cached, options) === 'unknown') throw error
      const body = await this.#body(cached.digest, options)
      if (body === undefined) throw error
      this.#deps.metrics.staleAnswers.inc({ kind: 'manifest' })
      this.#deps.log.warn(
        { registry: key.registry, repository: key.repository, err: error },
        'origin cannot be asked, stale manifest served',
      )
      return { ...cached, size: body.length, body, from: 'stale' }
    }
  }

  /** Asks only for the digest; when it is the one in the cache, its body need not be fetched again. */
  async #revalidate(key: ManifestKey, cached: Cached, options: ManifestOptions): Promise<ManifestAnswer | undefined> {
    const info = await originOrThrow(this.#deps.sources, key.registry).statManifest(key, options)
    if (info?.digest !== cached.digest) return undefined
    const body = await this.#body(cached.digest, options)
    if (body === undefined) return undefined
    // The body's own length: what a HEAD says of it is not to be believed.
    const answer = { ...info, size: body.length, body }
    this.#remember(key, answer, options)
    return { ...answer, from: 'revalidated' }
  }

  async #fetch(key: ManifestKey, options: ManifestOptions): Promise<ManifestAnswer | undefined> {
    const manifest = await originOrThrow(this.#deps.sources, key.registry).getManifest(key, options)
    if (manifest === undefined) {
      this.#forget(key, options)
      return undefined
    }
    await this.#keep(manifest)
    this.#remember(key, manifest, options)
    return { ...manifest, from: 'origin' }
  }

  /** What a caller without the right to it is told is not there may still be there for others. */
  #forget(key: ManifestKey, options: ManifestOptions): void {
    const { access, store } = this.#deps
    const reference = formatReference(key.reference)
    const row = store.manifests.get(key.registry, key.repository, reference)
    if (row === undefined) return
    const place = placeOf(key, row.digest)
    if (!access.isPrivate(place)) store.manifests.remove(key.registry, key.repository, reference)
    if ('digest' in key.reference) access.forget(place, options.authorization)
  }

  #remember(key: ManifestKey, info: ManifestInfo, options: ManifestOptions): void {
    const { access, clock, store } = this.#deps
    access.allow(placeOf(key, info.digest), info.visibility ?? 'shared', options.authorization)
    const row = { digest: info.digest, mediaType: info.mediaType, size: info.size, checkedAt: clock.now() }
    store.manifests.put(key.registry, key.repository, formatReference(key.reference), row)
    if ('tag' in key.reference) store.manifests.put(key.registry, key.repository, info.digest, row)
  }

  #cached(key: ManifestKey, options: ManifestOptions): Cached | undefined {
    const row = this.#deps.store.manifests.get(key.registry, key.repository, formatReference(key.reference))
    return row !== undefined && accepts(options.accept, row.mediaType) ? row : undefined
  }

  #isFresh(key: ManifestKey, cached: Cached): boolean {
    return 'digest' in key.reference || cached.checkedAt + this.#options.tagTtlMs > this.#deps.clock.now()
  }

  #access(key: ManifestKey, cached: Cached, options: ManifestOptions): 'allowed' | 'expired' | 'unknown' {
    return this.#deps.access.check(placeOf(key, cached.digest), options.authorization)
  }

  /** Only proven bytes: others may have come from elsewhere, block by block. */
  async #body(digest: Digest, options: ManifestOptions): Promise<Uint8Array | undefined> {
    const signal = options.signal === undefined ? {} : { signal: options.signal }
    const blob = this.#deps.store.find(digest)
    if (blob === undefined || blob.size > MAX_MANIFEST_BYTES) return undefined
    if (blob.state !== 'complete' && (await blob.settled(signal)) !== 'complete') return undefined
    blob.touch()
    try {
      return await blob.read(0, blob.size, signal)
    } catch (error: unknown) {
      if (errorCode(error) === 'ERR_STORE_IO') return undefined
      throw error
    }
  }

  /** The source has verified the body. A store that does not take it costs a fetch the next time, nothing else. */
  async #keep(manifest: Manifest): Promise<void> {
    try {
      const blob = this.#deps.store.ensure(manifest.digest, { size: manifest.size, mediaType: manifest.mediaType })
      using reservation = blob.reserve(manifest.size)
      if (reservation === undefined) return
      for (let block = 0; block < blockCount(manifest.size); block += 1) {
        const piece = manifest.body.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
        await blob.write(block, [piece], 'manifest')
      }
    } catch (error: unknown) {
      if (error instanceof ShoalError && error.code === 'ERR_CLOSED') throw error
      this.#deps.log.warn({ digest: manifest.digest, cause: describeError(error) }, 'manifest not stored')
    }
  }
}

function placeOf(key: ManifestKey, digest: Digest): BlobKey {
  return { digest, registry: key.registry, repository: key.repository }
}

/** Whether a client that sent this Accept header takes `mediaType` (RFC 9110, 12.5.1; parameters are ignored). */
export function accepts(accept: string | undefined, mediaType: string): boolean {
  if (accept === undefined || accept.trim() === '') return true
  const [family] = mediaType.split('/')
  return accept.split(',').some(part => {
    const type = (part.split(';')[0] ?? '').trim().toLowerCase()
    return type === '*/*' || type === mediaType.toLowerCase() || type === `${family ?? ''}/*`
  })
}
