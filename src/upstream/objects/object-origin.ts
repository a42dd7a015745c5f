import { LRUCache } from 'lru-cache'
import {
  digestHex,
  type BegunBlob,
  type BlobInfo,
  type BlobKey,
  type BlobSource,
  type ByteRange,
  type Clock,
  type Logger,
  type SourceOptions,
} from '../../core/index.ts'
import type { UpstreamMetrics } from '../metrics.ts'
import { beginBlob, openBlob, statBlob, type OpenDeps } from '../registry/blobs.ts'
import type { ObjectServer } from './object-server.ts'
import { ObjectSession } from './object-session.ts'

/** How long a server that ignored a Range is not asked for one again. */
const RANGELESS_MS = 10 * 60_000
const MAX_KNOWN_SIZES = 10_000

/**
 * A server that has blobs as objects, each under the hex of its digest; repositories mean nothing there. It has no manifests and no
 * listings. A caller's own credential is never passed on.
 */
export class ObjectOrigin implements BlobSource, AsyncDisposable {
  readonly name: string
  readonly #clock: Clock
  readonly #log: Logger
  readonly #metrics: UpstreamMetrics
  readonly #server: ObjectServer
  readonly #retries: number
  readonly #sizes = new LRUCache<string, number>({ max: MAX_KNOWN_SIZES })
  #rangelessUntil = 0

  constructor(
    deps: {
      readonly clock: Clock
      readonly log: Logger
      readonly metrics: UpstreamMetrics
      readonly server: ObjectServer
    },
    options: { readonly name: string; readonly retries: number },
  ) {
    this.name = options.name
    this.#clock = deps.clock
    this.#log = deps.log
    this.#metrics = deps.metrics
    this.#server = deps.server
    this.#retries = options.retries
  }

  async stat(key: BlobKey, options: SourceOptions = {}): Promise<BlobInfo | undefined> {
    const info = await statBlob(this.#session(key), key, options)
    if (info !== undefined) this.#sizes.set(key.digest, info.size)
    return info
  }

  async open(
    key: BlobKey,
    range: ByteRange,
    options: SourceOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    return openBlob(this.#openDeps(key), key, range, options)
  }

  async begin(key: BlobKey, range: ByteRange, options: SourceOptions = {}): Promise<BegunBlob | undefined> {
    const begun = await beginBlob(this.#openDeps(key), key, range, options)
    if (begun !== undefined) this.#sizes.set(key.digest, begun.info.size)
    return begun
  }

  readsWhole(): boolean {
    return this.#clock.now() < this.#rangelessUntil
  }

  /** Refuses new requests with ERR_CLOSED and waits for those under way. May be called again. */
  close(): Promise<void> {
    return this.#server.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #session({ digest }: BlobKey): ObjectSession {
    return new ObjectSession(
      {
        server: this.#server,
        clock: this.#clock,
        metrics: this.#metrics,
        isRangeless: () => this.readsWhole(),
        ignoresRange: host => this.#ignoresRange(host),
      },
      { hex: digestHex(digest), retries: this.#retries },
    )
  }

  #openDeps(key: BlobKey): OpenDeps {
    return {
      client: this.#session(key),
      sizes: { get: ({ digest }) => this.#sizes.get(digest), forget: ({ digest }) => this.#sizes.delete(digest) },
      received: bytes => this.#metrics.bytes.inc(bytes),
    }
  }

  #ignoresRange(host: string): void {
    if (!this.readsWhole()) this.#log.warn({ host }, 'origin ignores Range')
    this.#rangelessUntil = this.#clock.now() + RANGELESS_MS
    this.#metrics.rangesIgnored.inc()
  }
}
