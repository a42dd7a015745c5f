import { LRUCache } from 'lru-cache'
import type { Registry } from 'prom-client'
import {
  BLOCK_BYTES,
  ShoalError,
  SingleFlight,
  blockCount,
  blocksOf,
  errorCode,
  raceAbort,
  type BegunBlob,
  type BlobInfo,
  type BlobKey,
  type BlobSource,
  type ByteRange,
  type Clock,
  type Digest,
  type Logger,
} from '../core/index.ts'
import type { ChunkStore, StoredBlob } from '../store/index.ts'
import { Access } from './access.ts'
import { BlobFill } from './blob-fill.ts'
import { readThrough, type Timings } from './blob-stream.ts'
import type { Urgency } from './demand.ts'
import { createBlobMetrics, type BlobMetrics } from './metrics.ts'
import { Parallelism } from './parallelism.ts'
import { wholeChunks } from './plan.ts'
import { Precedence } from './precedence.ts'
import { ReadAhead } from './read-ahead.ts'
import { firstAnswer, isUnreachable, originOrThrow, type Sources } from './sources.ts'

/** Blobs whose readers' sequences are remembered. */
const MAX_TRACKED_BLOBS = 1000
/** Registries whose speed is remembered: `*` stands for any number of names. */
const MAX_TRACKED_REGISTRIES = 1000
/** A blob that did not match its digest is proven before its next bytes leave, for this long. */
const SUSPECT_MS = 60 * 60 * 1000

export interface BlobReaderDeps {
  readonly store: ChunkStore
  readonly sources: Sources
  readonly log: Logger
  readonly clock: Clock
  readonly metrics: Registry
}

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined
  /** The caller's own Authorization header. */
  readonly authorization?: string | undefined
  /** Default: `demand`. */
  readonly urgency?: Urgency | undefined
}

export interface StatOptions extends ReadOptions {
  /** The bytes that will be read next; they may come along with the size. `end` may be Infinity. */
  readonly first?: ByteRange | undefined
}

/** What is known of a blob. */
export interface BlobStat extends BlobInfo {
  /** Nothing was known of it before, and its first bytes are on their way from a source on account of this question. */
  readonly begun: boolean
}

/** How much of a range was in the store when it was asked for. */
export type Presence = 'hit' | 'partial' | 'miss'

/** A range on its way to one reader. Iterate once. */
export interface BlobStream extends AsyncIterable<Uint8Array> {
  readonly presence: Presence
  /** Complete as far as the pieces taken so far. */
  readonly timings: Readonly<Timings>
}

/** A blob that is in the index and that this caller may read; for answers that need no waiting. */
export type OpenBlob = Pick<
  StoredBlob,
  'size' | 'mediaType' | 'state' | 'missing' | 'readNow' | 'canSendNow' | 'sendNow' | 'read' | 'hold' | 'touch'
>

/**
 * The only way bytes reach anyone. Looks into the store, fills what is missing from the sources, each block once for everybody, and
 * hands over nothing to a caller who could not have pulled it. Everything may be called concurrently; after close() everything throws.
 */
export class BlobReader implements AsyncDisposable {
  readonly access: Access
  readonly #deps: BlobReaderDeps
  readonly #log: Logger
  readonly #metrics: BlobMetrics
  readonly #fills = new Map<Digest, BlobFill>()
  /** Also those whose blob has been replaced, as long as somebody reads from them. */
  readonly #live = new Set<BlobFill>()
  readonly #stats = new SingleFlight<BlobStat | undefined>()
  readonly #traffic = new LRUCache<string, Traffic>({ max: MAX_TRACKED_REGISTRIES })
  readonly #readAhead = new LRUCache<Digest, ReadAhead>({ max: MAX_TRACKED_BLOBS })
  readonly #suspects = new LRUCache<Digest, true>({ max: MAX_TRACKED_BLOBS, ttl: SUSPECT_MS })
  readonly #stopListening: () => void
  #closed = false

  constructor(deps: BlobReaderDeps) {
    this.#deps = deps
    this.#log = deps.log
    this.#metrics = createBlobMetrics(deps.metrics)
    this.access = new Access({ places: deps.store.places, sources: deps.sources, clock: deps.clock })
    this.#stopListening = deps.store.onQuarantine(({ digest, sources }) => this.#distrust(digest, sources))
  }

  get metrics(): BlobMetrics {
    return this.#metrics
  }

  /** The blob, when it is known here and the caller may read it; without asking anyone. Blocks of it may still be missing. */
  lookup(key: BlobKey, authorization?: string): OpenBlob | undefined {
    this.#assertOpen()
    if (this.#suspects.has(key.digest) || this.access.check(key, authorization) !== 'allowed') return undefined
    return this.#deps.store.find(key.digest)
  }

  /** Size and type, from the index or from the first source that knows. Undefined: no source has it. */
  async stat(key: BlobKey, options: StatOptions = {}): Promise<BlobStat | undefined> {
    this.#assertOpen()
    const known = this.#deps.store.find(key.digest)
    const answer = this.access.check(key, options.authorization)
    if (answer === 'allowed' && known !== undefined) return infoOf(known)
    try {
      return await this.#ask(key, options)
    } catch (error: unknown) {
      if (answer === 'unknown' || known === undefined || options.signal?.aborted === true || !isUnreachable(error))
        throw error
      this.access.extend(key)
      this.#metrics.staleAnswers.inc({ kind: 'blob' })
      this.#log.warn(
        { digest: key.digest, registry: key.registry, err: error },
        'origin cannot be asked, served on an earlier proof',
      )
      return infoOf(known)
    }
  }

  /** The bytes of `range`, which must lie within the blob. Undefined: no source has it. Nothing is fetched before the first pull. */
  async stream(key: BlobKey, range: ByteRange, options: ReadOptions = {}): Promise<BlobStream | undefined> {
    const info = await this.stat(key, { ...options, first: range })
    if (info === undefined) return undefined
    assertWithin(range, info.size)
    const blob = this.#ensure(key.digest, info)
    if (this.#suspects.has(key.digest)) await this.#prove(key, blob, options)
    const presence = info.begun ? 'miss' : presenceOf(this.#fills.get(key.digest) ?? blob, range)
    const timings: Timings = { store: 0, origin: 0 }
    blob.touch()
    return { presence, timings, [Symbol.asyncIterator]: () => this.#read(key, blob, range, timings, options) }
  }

  /** Fills `target` from `offset`; returns the bytes read, fewer only at the blob's end. Throws ERR_BLOB_UNAVAILABLE when nobody has it. */
  async readInto(key: BlobKey, offset: number, target: Uint8Array, options: ReadOptions = {}): Promise<number> {
    const info = await this.stat(key, options)
    if (info === undefined) throw absent(key)
    const end = Math.min(info.size, offset + target.length)
    if (offset >= end) return 0
    const blob = this.#deps.store.find(key.digest)
    const part = target.subarray(0, end - offset)
    if (!this.#suspects.has(key.digest) && blob?.readNow(part, offset) === true) return part.length
    const stream = await this.stream(key, { start: offset, end }, options)
    let filled = 0
    if (stream === undefined) throw absent(key)
    for await (const piece of stream) {
      target.set(piece, filled)
      filled += piece.length
    }
    return filled
  }

  /**
   * Fetches whole chunks of `ranges` when nobody waits for anything else of their registry; what is under way already is not fetched again.
   * Resolves when it has been arranged, not when it is done.
   */
  async prefetch(key: BlobKey, ranges: readonly ByteRange[], options: ReadOptions = {}): Promise<void> {
    const info = await this.stat(key, options)
    if (info === undefined) return
    const blob = this.#ensure(key.digest, info)
    for (const range of ranges) {
      const { start, end } = wholeChunks(range, info.size)
      const { authorization } = options
      this.#fillOf(key, blob).addBackground({ key, start, end, authorization, urgency: 'prefetch' })
    }
  }

  /** Ends every stream. The store stays open. */
  close(): Promise<void> {
    this.#closed = true
    this.#stopListening()
    for (const fill of this.#live) fill.fail(new ShoalError('ERR_CLOSED', 'the blob reader is closing'))
    return Promise.resolve()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async *#read(
    key: BlobKey,
    blob: StoredBlob,
    range: ByteRange,
    timings: Timings,
    options: ReadOptions,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    if (range.start === range.end) return
    this.#assertOpen()
    const ahead = this.#readAheadOf(key.digest).observe(range)
    const fill = this.#fillOf(key, blob)
    const { authorization, urgency } = options
    const demand = fill.add({ key, ...range, background: false, authorization, urgency })
    const end = Math.min(blob.size, range.end + ahead)
    fill.addBackground({ key, start: range.end, end, authorization, urgency })
    yield* readThrough(fill, demand, range, timings, options.signal)
  }

  #ask(key: BlobKey, options: StatOptions): Promise<BlobStat | undefined> {
    const flight = `${key.registry}\0${key.repository}\0${key.digest}\0${options.authorization ?? ''}`
    return this.#stats.run(flight, signal => this.#askSources(key, options, signal), {
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    })
  }

  async #askSources(key: BlobKey, options: StatOptions, signal: AbortSignal): Promise<BlobStat | undefined> {
    const { authorization } = options
    originOrThrow(this.#deps.sources, key.registry)
    try {
      const stat = await firstAnswer(
        this.#deps.sources.forBlob(key),
        source => this.#askSource(source, key, options, signal),
        (source, error) => {
          signal.throwIfAborted()
          // A challenge is how every caller of a private registry begins.
          const level = errorCode(error) === 'ERR_UPSTREAM_AUTH' ? 'debug' : 'warn'
          this.#log[level](
            { digest: key.digest, source: source.name, err: error },
            'source could not be asked for the size',
          )
        },
      )
      if (stat === undefined) this.access.forget(key, authorization)
      return stat
    } catch (error: unknown) {
      if (errorCode(error) === 'ERR_UPSTREAM_AUTH') this.access.forget(key, authorization)
      throw error
    }
  }

  async #askSource(
    source: BlobSource,
    key: BlobKey,
    options: StatOptions,
    signal: AbortSignal,
  ): Promise<BlobStat | undefined> {
    const { authorization } = options
    const opening = await this.#openSource(source, key, options, signal)
    if (opening === undefined) return undefined
    try {
      this.#assertOpen()
      const blob = this.#ensure(key.digest, opening.info)
      this.access.allow(key, opening.info.visibility ?? 'shared', authorization)
      if (opening.body !== undefined) this.#fillOf(key, blob).adopt({ key, authorization, ...opening })
      return infoOf(blob, opening.body !== undefined)
    } catch (error: unknown) {
      // Nobody is going to read what has begun to come, and it would keep its connection.
      if (opening.body !== undefined) opening.abort.abort(error)
      throw error
    }
  }

  /** The size; and, of a blob that nothing is known of, the first bytes in the same request where the source can do that. */
  async #openSource(
    source: BlobSource,
    key: BlobKey,
    { authorization, first, urgency }: StatOptions,
    signal: AbortSignal,
  ): Promise<Opening | undefined> {
    const { parallelism, precedence } = this.#trafficOf(key.registry)
    const asked = authorization === undefined ? {} : { authorization }
    const standsBack = urgency === 'prefetch' && !precedence.isFree(this.#deps.clock.now())
    const isKnown = this.#deps.store.find(key.digest) !== undefined
    if (first === undefined || source.begin === undefined || standsBack || isKnown) {
      const info = await source.stat(key, { signal, ...asked })
      return info === undefined ? undefined : { info }
    }
    // The body outlives this call, so it needs a signal of its own.
    const abort = new AbortController()
    const onAbort = (): void => abort.abort(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    const range = firstSegment(first, parallelism.segmentBytes)
    const begun = await source.begin(key, range, { signal: abort.signal, ...asked })
    signal.removeEventListener('abort', onAbort)
    return begun === undefined ? undefined : { ...begun, abort, source: source.name }
  }

  /** The row for a blob of this size. A proven blob knows its size better than any source; an unproven one of another size starts afresh. */
  #ensure(digest: Digest, info: BlobInfo): StoredBlob {
    const { store } = this.#deps
    const known = store.find(digest)
    if (known !== undefined && (known.size === info.size || known.state === 'complete')) return known
    if (known !== undefined) {
      this.#log.warn(
        { digest, known: known.size, offered: info.size },
        'sources disagree on the size, blob starts afresh',
      )
      this.#fills.get(digest)?.fail(new ShoalError('ERR_UPSTREAM_BODY', `sources disagree on the size of ${digest}`))
      // Gone from the index at once; the promise is for its bytes on disk.
      store
        .remove(digest)
        .catch((error: unknown) => this.#log.warn({ digest, err: error }, 'blob could not be removed'))
    }
    const { size, mediaType } = info
    return store.ensure(digest, mediaType === undefined ? { size } : { size, mediaType })
  }

  #fillOf(key: BlobKey, blob: StoredBlob): BlobFill {
    const existing = this.#fills.get(key.digest)
    if (existing?.blob === blob) return existing
    const { clock, sources } = this.#deps
    const fill = new BlobFill(
      {
        log: this.#log,
        clock,
        metrics: this.#metrics,
        ...this.#trafficOf(key.registry),
        sources: wanted => sources.forBlob(wanted),
        onIdle: () => {
          this.#live.delete(fill)
          if (this.#fills.get(key.digest) === fill) this.#fills.delete(key.digest)
        },
      },
      blob,
    )
    this.#fills.set(key.digest, fill)
    this.#live.add(fill)
    return fill
  }

  #trafficOf(registry: string): Traffic {
    const known = this.#traffic.get(registry) ?? { parallelism: new Parallelism(), precedence: new Precedence() }
    this.#traffic.set(registry, known)
    return known
  }

  #readAheadOf(digest: Digest): ReadAhead {
    const known = this.#readAhead.get(digest) ?? new ReadAhead()
    this.#readAhead.set(digest, known)
    return known
  }

  /** Fetches all of a blob that was wrong before, and lets nothing of it out until its digest is proven. */
  async #prove(key: BlobKey, blob: StoredBlob, options: ReadOptions): Promise<void> {
    const reservation = blob.state === 'complete' ? undefined : blob.reserve(blob.size)
    if (blob.state !== 'complete' && reservation === undefined) {
      throw new ShoalError(
        'ERR_STORE_FULL',
        `${key.digest} has to be proven before it is served, and there is no room for it`,
      )
    }
    reservation?.[Symbol.dispose]()
    const timings: Timings = { store: 0, origin: 0 }
    const pieces = this.#read(key, blob, { start: 0, end: blob.size }, timings, options)
    while ((await pieces.next()).done !== true);
    const idle = this.#fills.get(key.digest)?.idle
    if (idle !== undefined) await raceAbort(idle, options.signal)
    const state = await blob.settled(options.signal === undefined ? {} : { signal: options.signal })
    if (state === 'complete') {
      this.#suspects.delete(key.digest)
      return
    }
    throw new ShoalError('ERR_DIGEST_MISMATCH', `what the sources sent for ${key.digest} could not be proven`, {
      details: { state },
    })
  }

  #distrust(digest: Digest, sources: readonly string[]): void {
    this.#suspects.set(digest, true)
    this.#fills.get(digest)?.fail(
      new ShoalError(
        'ERR_DIGEST_MISMATCH',
        `${digest} does not match its bytes, which came from ${sources.join(', ')}`,
        {
          details: { sources },
        },
      ),
    )
  }

  #assertOpen(): void {
    if (this.#closed) throw new ShoalError('ERR_CLOSED', 'the blob reader is closed')
  }
}

/** What the fills of one registry share. */
interface Traffic {
  readonly parallelism: Parallelism
  readonly precedence: Precedence
}

/** What a source told of a blob, and perhaps its first bytes. */
type Opening =
  | { readonly info: BlobInfo; readonly body?: undefined }
  | (BegunBlob & { readonly abort: AbortController; readonly source: string })

/** Whole blocks from the one that `first` begins in, as many as one request should bring. */
function firstSegment(first: ByteRange, segmentBytes: number): ByteRange {
  const start = Math.floor(first.start / BLOCK_BYTES) * BLOCK_BYTES
  return { start, end: Math.min(Math.ceil(first.end / BLOCK_BYTES) * BLOCK_BYTES, start + segmentBytes) }
}

function absent(key: BlobKey): ShoalError {
  return new ShoalError('ERR_BLOB_UNAVAILABLE', `no source has ${key.digest}`, { details: { absent: true } })
}

function infoOf(blob: StoredBlob, begun = false): BlobStat {
  const { size, mediaType } = blob
  return mediaType === undefined ? { size, begun } : { size, mediaType, begun }
}

/** How much of `range` of `blob` is in the store now. */
export function presenceOf(blob: Pick<StoredBlob, 'size' | 'state' | 'missing'>, range: ByteRange): Presence {
  if (blob.state === 'complete') return 'hit'
  const run = range.start === 0 && range.end === blob.size ? { first: 0, end: blockCount(blob.size) } : blocksOf(range)
  const missing = blob.missing(run).reduce((sum, part) => sum + part.end - part.first, 0)
  if (missing === 0) return 'hit'
  return missing === run.end - run.first ? 'miss' : 'partial'
}

function assertWithin(range: ByteRange, size: number): void {
  if (range.start >= 0 && range.start <= range.end && range.end <= size) return
  throw new ShoalError(
    'ERR_RANGE_UNSATISFIABLE',
    `bytes ${range.start} to ${range.end} do not lie within the blob's ${size} bytes`,
    {
      details: { size },
    },
  )
}
