import {
  errorCode,
  type BegunBlob,
  type BlobInfo,
  type BlobKey,
  type BlobSource,
  type ByteRange,
  type Digest,
  type ListingAnswer,
  type ListingRequest,
  type Logger,
  type Manifest,
  type ManifestInfo,
  type ManifestKey,
  type ManifestOptions,
  type Origin,
  type SourceOptions,
} from '../../core/index.ts'
import type { Capability } from '../options.ts'
import { capabilityFor, type Mirror } from './mirror.ts'
import type { MirrorState } from './state.ts'
import type { ClosableOrigin } from './watched-origin.ts'

/**
 * A registry behind its mirrors. Each is asked in order, as long as it is healthy and meant for it, and the registry last, whose word is
 * final: what a mirror does not have, does not allow or fails to answer is never what a caller is told once the registry has answered.
 */
export class MirroredOrigin implements Origin, AsyncDisposable {
  readonly name: string
  /** For blobs, in the order to try them. A body that breaks off is for the caller to go on with, at the next source. */
  readonly sources: readonly BlobSource[]
  readonly #log: Logger
  readonly #mirrors: readonly Mirror[]
  readonly #origin: ClosableOrigin

  /** All are owned: closed with this. */
  constructor(
    deps: { readonly log: Logger },
    options: { readonly mirrors: readonly Mirror[]; readonly origin: ClosableOrigin },
  ) {
    const { mirrors, origin } = options
    this.name = origin.name
    this.sources = [...mirrors.map(mirror => this.#yielding(mirror)), origin]
    this.#log = deps.log
    this.#mirrors = mirrors
    this.#origin = origin
  }

  async stat(key: BlobKey, options: SourceOptions = {}): Promise<BlobInfo | undefined> {
    return this.#fromSources(source => source.stat(key, options))
  }

  async open(
    key: BlobKey,
    range: ByteRange,
    options: SourceOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    return this.#fromSources(source => source.open(key, range, options))
  }

  async statManifest(key: ManifestKey, options: ManifestOptions = {}): Promise<ManifestInfo | undefined> {
    const found = await this.#fromMirrors(capabilityFor(key), options, mirror => mirror.statManifest(key, options))
    return found ?? this.#origin.statManifest(key, options)
  }

  async getManifest(key: ManifestKey, options: ManifestOptions = {}): Promise<Manifest | undefined> {
    const found = await this.#fromMirrors(capabilityFor(key), options, mirror => mirror.getManifest(key, options))
    return found ?? this.#origin.getManifest(key, options)
  }

  async list(request: ListingRequest, options: SourceOptions = {}): Promise<ListingAnswer> {
    const listed = await this.#fromMirrors('resolve', options, async mirror => {
      const answer = await mirror.list(request, options)
      return answer.status === 200 ? answer : undefined
    })
    return listed ?? this.#origin.list(request, options)
  }

  /** Bytes of a blob that came from `sources`, by name, do not match its digest: those mirrors are not asked for it for a while. */
  distrust(digest: Digest, sources: readonly string[]): void {
    for (const mirror of this.#mirrors) if (sources.includes(mirror.name)) mirror.distrust(digest)
  }

  states(): MirrorState[] {
    return this.#mirrors.map(mirror => mirror.state())
  }

  /** Refuses new requests with ERR_CLOSED and waits for those under way. May be called again. */
  async close(): Promise<void> {
    await Promise.all([...this.#mirrors, this.#origin].map(source => source.close()))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #fromSources<T>(ask: (source: BlobSource) => Promise<T | undefined>): Promise<T | undefined> {
    for (const source of this.sources) {
      const answer = await ask(source)
      if (answer !== undefined) return answer
    }
    return undefined
  }

  async #fromMirrors<T>(
    capability: Capability,
    options: SourceOptions,
    ask: (mirror: Mirror) => Promise<T | undefined>,
  ): Promise<T | undefined> {
    for (const mirror of this.#mirrors) {
      if (!mirror.offers(capability)) continue
      const answer = await this.#attempt(mirror, options, () => ask(mirror))
      if (answer !== undefined) return answer
    }
    return undefined
  }

  /** `mirror` as one source of several: what it fails to begin, the next one is asked for as if this one did not have it. */
  #yielding(mirror: Mirror): BlobSource {
    const begin = mirror.begin?.bind(mirror)
    return {
      name: mirror.name,
      stat: (key, options = {}) => this.#attempt(mirror, options, () => mirror.stat(key, options)),
      open: (key, range, options = {}) => this.#attempt(mirror, options, () => mirror.open(key, range, options)),
      readsWhole: key => mirror.readsWhole(key),
      ...(begin === undefined
        ? {}
        : {
            begin: (key: BlobKey, range: ByteRange, options: SourceOptions = {}): Promise<BegunBlob | undefined> =>
              this.#attempt(mirror, options, () => begin(key, range, options)),
          }),
    }
  }

  /** Undefined: the next one is to be asked, whatever came of it. Aborted: `signal.reason`. */
  async #attempt<T>(
    mirror: Mirror,
    { signal }: SourceOptions,
    ask: () => Promise<T | undefined>,
  ): Promise<T | undefined> {
    try {
      return await ask()
    } catch (error: unknown) {
      signal?.throwIfAborted()
      // A refusal is no failure, and where rights are the registry's alone, every private blob begins with one.
      const level = errorCode(error) === 'ERR_UPSTREAM_AUTH' ? 'debug' : 'warn'
      this.#log[level]({ mirror: mirror.name, err: error }, 'mirror did not answer, the next source is asked')
      return undefined
    }
  }
}
