import { LRUCache } from 'lru-cache'
import {
  asError,
  isHang,
  ShoalError,
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
import type { Capability, UpstreamDeps } from '../options.ts'
import { upTo } from '../up-to.ts'
import { MirrorHealth, type HealthOptions } from './health.ts'
import { createMirrorMetrics, type MirrorMetrics, type StatusTally } from './metrics.ts'
import {
  failureKind,
  outcomeOfAnswer,
  outcomeOfError,
  outcomeOfListing,
  type MirrorRequestOutcome,
} from './outcomes.ts'
import { MAX_PING_MS, Probe, type Ping } from './probe.ts'
import type { MirrorState, MirrorStatus } from './state.ts'
import { WatchedOrigin, type ClosableOrigin } from './watched-origin.ts'

/** For how long a mirror is not asked for a blob of which it sent wrong bytes. */
const DISTRUST_MS = 60 * 60_000
const MAX_DISTRUSTED = 1_000

export interface MirrorDeps extends UpstreamDeps {
  /** Speaks to the mirror's host, and repeats nothing by itself. Owned: closed with the mirror. */
  readonly inner: ClosableOrigin
  /** On a connection that does not wait for those of `inner`. */
  readonly ping: Ping
}

export interface MirrorSettings {
  /** `mirror:<host>`. */
  readonly name: string
  /** The name that images use. */
  readonly registry: string
  /** `host[:port]`, for people. */
  readonly host: string
  readonly capabilities: readonly Capability[]
  readonly health: HealthOptions & {
    /** A ping may take as long, and never longer than MAX_PING_MS. Default: that. */
    readonly connectTimeoutMs?: number
  }
}

/**
 * A server that is asked before the registry as long as it is healthy. While it is not, and for what it is not meant for, it has nothing:
 * every method answers undefined at once, and list() throws. Failures are thrown like any origin's, and count. When the host hangs,
 * everything under way there ends within about two seconds with ERR_UPSTREAM_TIMEOUT.
 */
export class Mirror implements Origin {
  readonly name: string
  readonly begin?: NonNullable<BlobSource['begin']>
  readonly #log: Logger
  readonly #metrics: MirrorMetrics
  readonly #watched: WatchedOrigin
  readonly #settings: MirrorSettings
  readonly #health: MirrorHealth
  readonly #probe: Probe
  readonly #distrusted: LRUCache<Digest, true>
  readonly #tally: StatusTally
  #requests = 0
  #bytes = 0
  #closed = false

  constructor(deps: MirrorDeps, settings: MirrorSettings) {
    const { clock, inner, ping } = deps
    const { health, host, name, registry } = settings
    const metrics = createMirrorMetrics(deps.metrics)
    const { connectTimeoutMs = MAX_PING_MS } = health
    this.name = name
    this.#log = deps.log.child({ mirror: name, registry })
    this.#metrics = metrics
    this.#settings = settings
    // 401 and 404 included: many registries say so of /v2 without a token, or at all.
    const probe = new Probe({ clock, metrics, ping }, { host, isAlive: status => status < 500 })
    this.#probe = probe
    this.#health = new MirrorHealth(
      {
        clock,
        ping: signal => probe.run({ timeoutMs: connectTimeoutMs, signal }),
        onCounted: kind => metrics.failure(kind),
        onChange: status => this.#changed(status),
      },
      health,
    )
    const watched = new WatchedOrigin(
      {
        clock,
        inner,
        ping: options => probe.run(options),
        onHung: error => this.#health.failed(error, 'timeout'),
        onBytes: bytes => (this.#bytes += bytes),
        onBodyFailure: error => this.#failed(error),
      },
      { host },
    )
    this.#watched = watched
    this.#distrusted = new LRUCache({
      ...upTo(MAX_DISTRUSTED),
      ttl: DISTRUST_MS,
      ttlResolution: 0,
      perf: { now: () => clock.now() },
    })
    const { begin } = watched
    if (begin !== undefined) {
      this.begin = async (key, range, options = {}) =>
        this.#offersBlob(key) ? this.#ask(options, () => begin(key, range, options)) : undefined
    }
    this.#tally = metrics.tally('mirror')
    this.#tally.set(this.status)
  }

  get isUsable(): boolean {
    return this.#health.isUsable
  }

  get status(): MirrorStatus {
    return this.#health.status
  }

  /** Whether it is worth asking now. That it was wanted is remembered, and resumes its pings. Throws ERR_CLOSED. */
  offers(capability: Capability): boolean {
    if (this.#closed) throw new ShoalError('ERR_CLOSED', `${this.name} is closed`)
    if (!this.#settings.capabilities.includes(capability)) return false
    this.#health.wanted()
    return this.#health.isUsable
  }

  async stat(key: BlobKey, options: SourceOptions = {}): Promise<BlobInfo | undefined> {
    if (!this.#offersBlob(key)) return undefined
    return this.#ask(options, () => this.#watched.stat(key, options))
  }

  async open(
    key: BlobKey,
    range: ByteRange,
    options: SourceOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    if (!this.#offersBlob(key)) return undefined
    return this.#ask(options, () => this.#watched.open(key, range, options))
  }

  /** One that sends nothing of the blob sends nothing in vain either. */
  readsWhole(key: BlobKey): boolean {
    const sends = this.isUsable && this.#settings.capabilities.includes('pull') && !this.#distrusted.has(key.digest)
    return !sends || this.#watched.readsWhole(key)
  }

  async statManifest(key: ManifestKey, options: ManifestOptions = {}): Promise<ManifestInfo | undefined> {
    if (!this.offers(capabilityFor(key))) return undefined
    return this.#ask(options, () => this.#watched.statManifest(key, options))
  }

  async getManifest(key: ManifestKey, options: ManifestOptions = {}): Promise<Manifest | undefined> {
    if (!this.offers(capabilityFor(key))) return undefined
    return this.#ask(options, () => this.#watched.getManifest(key, options))
  }

  /** Throws ERR_UPSTREAM_TRANSPORT while offers('resolve') says no. */
  async list(request: ListingRequest, options: SourceOptions = {}): Promise<ListingAnswer> {
    if (!this.offers('resolve')) {
      const { host } = this.#settings
      throw new ShoalError('ERR_UPSTREAM_TRANSPORT', `${host} is not asked for listings now`, { details: { host } })
    }
    return this.#ask(options, () => this.#watched.list(request, options), outcomeOfListing)
  }

  /** What it sent of this blob does not match its digest: a failure, and for an hour it is not asked for that blob. */
  distrust(digest: Digest): void {
    this.#distrusted.set(digest, true)
    const { host } = this.#settings
    this.#health.failed(new ShoalError('ERR_DIGEST_MISMATCH', `${host} may have sent wrong bytes of ${digest}`), 'body')
  }

  state(): MirrorState {
    const { host, registry } = this.#settings
    const { last } = this.#probe
    return {
      registry,
      host,
      kind: 'mirror',
      ...this.#health.state(),
      ...(last === undefined ? {} : { lastPing: last }),
      requests: this.#requests,
      bytes: this.#bytes,
    }
  }

  /** Refuses new requests with ERR_CLOSED and waits for those under way. May be called again. */
  async close(): Promise<void> {
    this.#closed = true
    this.#health.close()
    this.#tally.remove()
    await this.#watched.close()
  }

  #offersBlob({ digest }: BlobKey): boolean {
    return this.offers('pull') && !this.#distrusted.has(digest)
  }

  async #ask<T>(
    { signal }: SourceOptions,
    work: () => Promise<T>,
    outcomeOf: (answer: T) => MirrorRequestOutcome = outcomeOfAnswer,
  ): Promise<T> {
    signal?.throwIfAborted()
    this.#requests += 1
    try {
      const answer = await work()
      this.#metrics.request(outcomeOf(answer))
      return answer
    } catch (error: unknown) {
      if (signal?.aborted === true) {
        this.#metrics.request('aborted')
      } else {
        this.#metrics.request(outcomeOfError(error))
        this.#failed(error)
      }
      throw error
    }
  }

  #failed(error: unknown): void {
    const kind = failureKind(error)
    if (kind === undefined) return
    this.#metrics.failover()
    // One failure has been counted for all that a hang ended.
    if (!isHang(error)) this.#health.failed(asError(error), kind)
  }

  #changed(status: MirrorStatus): void {
    this.#tally.set(status)
    const { failureLimit, failures, lastError } = this.#health.state()
    if (status === 'healthy') this.#log.info({ failures }, 'mirror answers, used again')
    else if (status === 'paused') this.#log.info({}, 'mirror not wanted, pings pause')
    else this.#log.warn({ status, failures, failureLimit, cause: lastError }, 'mirror not used')
  }
}

/** What a mirror needs to be asked for a manifest. */
export function capabilityFor({ reference }: ManifestKey): Capability {
  return 'tag' in reference ? 'resolve' : 'pull'
}
