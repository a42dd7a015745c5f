import {
  BLOCK_BYTES,
  ShoalError,
  blocksOf,
  describeError,
  errorCode,
  asError,
  type BegunBlob,
  type BlobKey,
  type BlobSource,
  type BlockRun,
  type ByteRange,
  type Clock,
  type Logger,
} from '../core/index.ts'
import type { StoredBlob } from '../store/index.ts'
import { Demand, type DemandOptions } from './demand.ts'
import { FlyingBlocks, type FlyingBlock } from './flying-blocks.ts'
import type { BlobMetrics } from './metrics.ts'
import type { Parallelism } from './parallelism.ts'
import { planSegment, type BlockState } from './plan.ts'
import { Pulse } from './pulse.ts'
import { Segment } from './segment.ts'

/** Requests that one fill may have under way when readers are blocked at many different places. */
const MAX_SEGMENTS = 32
/** Blocks of one segment that may wait for the disk before the source is made to wait. */
const MAX_PENDING_WRITES = 8
/** A fetch that everyone has left is finished all the same when so little is missing. */
const NEARLY_DONE_BYTES = 1024 * 1024
/** A reader that waited within this time counts as hungry: it empties what arrived ahead of it in bursts. */
const HUNGRY_MS = 100

export interface FillDeps {
  readonly log: Logger
  readonly clock: Clock
  readonly metrics: BlobMetrics
  readonly parallelism: Parallelism
  /** The sources of a blob in the order to try them. */
  readonly sources: (key: BlobKey) => readonly BlobSource[]
  /** Called once, when no demand and no fetch is left. */
  readonly onIdle: () => void
}

/** A body under way, and how to end it. */
export interface AdoptedBody extends Pick<BegunBlob, 'range' | 'body'> {
  readonly key: BlobKey
  readonly authorization: string | undefined
  readonly source: string
  readonly abort: AbortController
}

/**
 * Gets the missing blocks of one blob for everyone who wants them now: each block is fetched once, its bytes go to every waiting reader as
 * they arrive and to the store. Where the store takes nothing, the bytes stay in memory until their readers have had them, and the
 * source waits for the slowest of those that are near.
 */
export class BlobFill {
  readonly blob: StoredBlob
  /** Resolves when no demand, no fetch and no write is left. */
  readonly idle: Promise<void>
  #onIdle: () => void = () => undefined
  readonly #deps: FillDeps
  readonly #hold: Disposable
  readonly #demands = new Set<Demand>()
  readonly #segments = new Set<Segment>()
  readonly #flying: FlyingBlocks
  readonly #changed = new Pulse()
  readonly #room = new Pulse()
  readonly #state: BlockState
  #writing = 0
  #hungryAt = 0
  #failure: Error | undefined
  #idle = false
  /** The store refused, or a fetch ahead of its reader failed: from now on only what a reader waits for is fetched. */
  #careful = false

  constructor(deps: FillDeps, blob: StoredBlob) {
    this.#deps = deps
    this.blob = blob
    this.idle = new Promise(resolve => (this.#onIdle = resolve))
    this.#hold = blob.hold()
    const isWanted = (start: number, end: number): boolean => this.#isRead(start, end)
    this.#flying = new FlyingBlocks({ isWanted }, { size: blob.size })
    this.#state = { isPresent: block => blob.has(block), isClaimed: block => this.#isClaimed(block) }
    deps.metrics.fills.inc()
  }

  get size(): number {
    return this.blob.size
  }

  get state(): StoredBlob['state'] {
    return this.blob.state
  }

  /** Runs of blocks that are neither in the store nor, whole, in memory on their way there. */
  missing(run: BlockRun): BlockRun[] {
    return this.blob.missing(run).flatMap(part => {
      const runs: BlockRun[] = []
      for (let block = part.first; block < part.end; block += 1) {
        if (!this.#flying.isWhole(block)) runs.push({ first: block, end: block + 1 })
      }
      return runs
    })
  }

  add(options: DemandOptions): Demand {
    const demand = new Demand(options)
    this.#demands.add(demand)
    this.#pump()
    return demand
  }

  /** Takes over a body that a source has begun to send, unless somebody fetches those blocks already. It is iterated or aborted. */
  adopt(begun: AdoptedBody): void {
    const run = blocksOf(begun.range)
    const isFree = this.#idle
      ? false
      : this.missing(run).reduce((sum, part) => sum + part.end - part.first, 0) === run.end - run.first
    if (
      !isFree ||
      this.#failed ||
      begun.abort.signal.aborted ||
      run.first === run.end ||
      rangesOverlap(run, this.#segments)
    ) {
      begun.abort.abort(new DOMException('these bytes are not wanted', 'AbortError'))
      this.#endIfIdle()
      return
    }
    const { key, authorization, range } = begun
    const owner = new Demand({ key, authorization, background: false, ...range })
    const segment = new Segment(run, this.blob.size, owner)
    segment.abort.signal.addEventListener('abort', () => begun.abort.abort(segment.abort.signal.reason), { once: true })
    this.#start(segment, owner, begun)
  }

  /** A demand that ends by itself when every block of it is present, or when one cannot be had. */
  addBackground(options: Omit<DemandOptions, 'background'>): void {
    if (options.start < options.end && !this.#failed) this.add({ ...options, background: true })
    else this.#endIfIdle()
  }

  /** Bytes at the demand's position that are in memory because they have just arrived. */
  flyingPiece(demand: Demand): Uint8Array | undefined {
    const piece = this.#flying.pieceAt(demand.position)
    const left = demand.end - demand.position
    return piece !== undefined && piece.length > left ? piece.subarray(0, left) : piece
  }

  /** Waits until something has changed for the demand's next byte. Throws what made its fetch fail. */
  async arrival(demand: Demand, signal: AbortSignal | undefined): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    if (demand.failure !== undefined) throw demand.failure
    const { parallelism, clock } = this.#deps
    demand.grow((parallelism.connections + 1) * parallelism.segmentBytes)
    this.#pump()
    this.#hungryAt = clock.now()
    const changed = this.#changed.wait(signal)
    this.#room.beat()
    await changed
    this.#hungryAt = clock.now()
  }

  advance(demand: Demand, bytes: number): void {
    const before = Math.floor(demand.position / BLOCK_BYTES)
    demand.position += bytes
    if (Math.floor(demand.position / BLOCK_BYTES) === before && demand.position < demand.end) return
    this.#dropUnwanted()
    this.#pump()
  }

  /** Bytes straight from the sources, past the store: for a reader whose blocks are there but cannot be read. */
  async *direct(
    range: ByteRange,
    demand: Demand,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const { key, authorization } = demand
    const options = {
      ...(signal === undefined ? {} : { signal }),
      ...(authorization === undefined ? {} : { authorization }),
    }
    let position = range.start
    let failure: Error | undefined
    for (const source of this.#deps.sources(key)) {
      try {
        for await (const piece of (await source.open(key, { start: position, end: range.end }, options)) ?? []) {
          yield piece
          position += piece.length
        }
        if (position === range.end) return
      } catch (error: unknown) {
        signal?.throwIfAborted()
        failure = asError(error)
        this.#sourceFailed(key, source.name, error)
      }
    }
    throw failure ?? absentEverywhere(key)
  }

  /** The reader has left, at the end or before. What nobody else wants is stopped unless it is nearly done. */
  remove(demand: Demand): void {
    if (!this.#demands.delete(demand)) return
    if (demand.position < demand.end) this.#finishNearlyDone(demand)
    for (const segment of this.#segments) {
      if (!this.#isWanted(segment.position, segment.end) && segment.remaining > NEARLY_DONE_BYTES) {
        segment.abort.abort(new DOMException('nobody wants these bytes any longer', 'AbortError'))
      }
    }
    this.#dropUnwanted()
    this.#endIfIdle()
  }

  /** Ends every reader and every fetch with `error`. For a blob that turned out to be wrong, and for shutting down. */
  fail(error: Error): void {
    if (this.#failed) return
    this.#failure = error
    for (const segment of this.#segments) segment.abort.abort(error)
    for (const demand of this.#demands) if (demand.background) this.#demands.delete(demand)
    this.#changed.beat()
    this.#room.beat()
    this.#endIfIdle()
  }

  get #failed(): boolean {
    return this.#failure !== undefined
  }

  #isClaimed(block: number): boolean {
    if (this.#flying.has(block)) return true
    for (const segment of this.#segments) {
      // What it has passed was stored, is flying, or is gone.
      if (block >= Math.floor(segment.position / BLOCK_BYTES) && block < segment.run.end) return true
    }
    return false
  }

  #isWanted(start: number, end: number): boolean {
    for (const demand of this.#demands) if (demand.wants(start, end)) return true
    return false
  }

  /** Like #isWanted, but by somebody who is there to take the bytes. */
  #isRead(start: number, end: number): boolean {
    for (const demand of this.#demands) if (!demand.background && demand.wants(start, end)) return true
    return false
  }

  /** Starts what may be fetched now: for readers first, and for a reader that would otherwise wait for nothing at once. */
  #pump(): void {
    if (this.#failed || this.#idle) return
    for (const demand of this.#demands) if (!demand.background) this.#startFor(demand)
    for (const demand of this.#demands) if (demand.background) this.#startBackground(demand)
  }

  #startFor(demand: Demand): void {
    const { parallelism } = this.#deps
    if (this.#readsWhole(demand.key)) {
      this.#startWhole(demand)
      return
    }
    while (demand.failure === undefined) {
      if (!this.#isBlocked(demand) && (this.#careful || this.#busy() >= parallelism.connections)) return
      if (this.#segments.size >= MAX_SEGMENTS) return
      const bytes = Math.min(parallelism.segmentBytes, demand.window)
      const run = planSegment(demand, bytes / BLOCK_BYTES, this.#state)
      if (run === undefined) return
      this.#start(new Segment(run, this.blob.size, demand), demand)
    }
  }

  /** Every part would cost the bytes before it as well, so one request brings all that is missing, in order. */
  #startWhole(demand: Demand): void {
    if (this.#segments.size > 0 || demand.failure !== undefined || !this.#isBlocked(demand)) return
    const { size } = this.blob
    const run = planSegment({ position: 0, end: size, window: size }, Infinity, this.#state)
    if (run !== undefined) this.#start(new Segment(run, size, demand), demand)
  }

  #readsWhole(key: BlobKey): boolean {
    const sources = this.#deps.sources(key)
    return sources.length > 0 && sources.every(source => source.readsWhole?.(key) === true)
  }

  #startBackground(demand: Demand): void {
    while (demand.position < demand.end && this.blob.has(Math.floor(demand.position / BLOCK_BYTES))) {
      demand.position = Math.min(demand.end, (Math.floor(demand.position / BLOCK_BYTES) + 1) * BLOCK_BYTES)
    }
    if (demand.failure !== undefined || demand.position >= demand.end) {
      this.#demands.delete(demand)
      this.#endIfIdle()
    } else if (this.#busy() < this.#deps.parallelism.connections) {
      const run = planSegment(demand, this.#deps.parallelism.segmentBytes / BLOCK_BYTES, this.#state)
      if (run !== undefined) this.#start(new Segment(run, this.blob.size, demand), demand)
    }
  }

  #isBlocked(demand: Demand): boolean {
    if (demand.position >= demand.end) return false
    const block = Math.floor(demand.position / BLOCK_BYTES)
    return !this.blob.has(block) && !this.#isClaimed(block)
  }

  #busy(): number {
    let busy = 0
    for (const segment of this.#segments) if (!segment.nearlyDone) busy += 1
    return busy
  }

  #start(segment: Segment, demand: Demand, begun?: AdoptedBody): void {
    this.#segments.add(segment)
    // Never rejects: every outcome is handled inside.
    void this.#run(segment, demand, begun)
  }

  async #run(segment: Segment, demand: Demand, begun: AdoptedBody | undefined): Promise<void> {
    const { metrics } = this.#deps
    let reservation: Disposable | undefined
    try {
      reservation = this.blob.reserve(segment.remaining)
      this.#careful ||= reservation === undefined
      if (reservation === undefined && demand.background) {
        this.#demands.delete(demand)
        return
      }
      await this.#fetch(segment, demand, { storing: reservation !== undefined, begun })
      metrics.fetches.inc({ outcome: 'done' })
    } catch (error: unknown) {
      metrics.fetches.inc({ outcome: segment.abort.signal.aborted ? 'aborted' : 'failed' })
      if (!segment.abort.signal.aborted) this.#fetchFailed(segment, demand, asError(error))
      this.#flying.dropPartial(segment.run)
    } finally {
      reservation?.[Symbol.dispose]()
      this.#segments.delete(segment)
      this.#pump()
      this.#changed.beat()
      this.#endIfIdle()
    }
  }

  /** A failure is the reader's only if it waits for these bytes; ahead of it, it may be that one connection more was too many. */
  #fetchFailed(segment: Segment, demand: Demand, error: Error): void {
    const block = Math.floor(demand.position / BLOCK_BYTES)
    const isNext = block >= segment.run.first && block < segment.run.end
    if (isNext || demand.background) demand.failure = error
    else this.#careful = true
  }

  /** Nobody waits for these bytes, and they are not kept: there is no sense in fetching them. */
  #endBackground(block: number): void {
    const start = block * BLOCK_BYTES
    for (const demand of this.#demands) {
      if (demand.background && demand.wants(start, start + BLOCK_BYTES)) this.#demands.delete(demand)
    }
  }

  /** From the first source that delivers; one that dies is followed by the next, from the next byte on. */
  async #fetch(
    segment: Segment,
    demand: Demand,
    { storing, begun }: { storing: boolean; begun: AdoptedBody | undefined },
  ): Promise<void> {
    const { key, authorization } = demand
    const { signal } = segment.abort
    let failure: Error | undefined
    const options = { signal, ...(authorization === undefined ? {} : { authorization }) }
    const attempts = this.#deps.sources(key).map(source => ({
      name: source.name,
      open: () => source.open(key, { start: segment.position, end: segment.end }, options),
    }))
    if (begun !== undefined) attempts.unshift({ name: begun.source, open: () => Promise.resolve(begun.body) })
    for (const { name, open } of attempts) {
      try {
        const body = await open()
        if (body === undefined) continue
        for await (const piece of body) await this.#receive(segment, piece, name, storing)
        if (segment.remaining === 0) return
        throw new ShoalError('ERR_UPSTREAM_BODY', `${name} sent ${segment.remaining} bytes too few`)
      } catch (error: unknown) {
        signal.throwIfAborted()
        failure = asError(error)
        this.#sourceFailed(key, name, error)
      }
    }
    throw failure ?? absentEverywhere(key)
  }

  #sourceFailed(key: BlobKey, source: string, error: unknown): void {
    this.#deps.metrics.sourceFailures.inc({ code: errorCode(error) ?? 'other' })
    this.#deps.log.warn({ digest: key.digest, source, err: error }, 'source failed')
  }

  async #receive(segment: Segment, piece: Uint8Array, source: string, storing: boolean): Promise<void> {
    const { clock, metrics, parallelism } = this.#deps
    segment.abort.signal.throwIfAborted()
    if (piece.length > segment.remaining)
      throw new ShoalError('ERR_UPSTREAM_BODY', `${source} sent more bytes than asked for`)
    metrics.fetchedBytes.inc(piece.length)
    const whole = segment.take(piece, this.#flying)
    const now = clock.now()
    parallelism.received(
      piece.length,
      now,
      this.#segments.size,
      this.#changed.waiting || now - this.#hungryAt < HUNGRY_MS,
    )
    this.#changed.beat()
    // Never rejects: a block that the store refuses stays in memory for its readers.
    for (const block of whole) void this.#keep(segment, block, source, storing)
    if (segment.nearlyDone) this.#pump()
    while (segment.writing >= MAX_PENDING_WRITES) await this.#room.wait(segment.abort.signal)
    while (this.#isAhead() && !this.#changed.waiting) await this.#room.wait(segment.abort.signal)
  }

  async #keep(segment: Segment, block: number, source: string, storing: boolean): Promise<void> {
    const entry = this.#flying.get(block)
    if (entry === undefined) return
    segment.writing += 1
    this.#writing += 1
    const kept = storing && (await this.#write(block, entry, source))
    segment.writing -= 1
    this.#writing -= 1
    if (!kept) this.#deps.metrics.unstoredBytes.inc(entry.length)
    this.#flying.settle(block, kept ? 'stored' : 'unstored')
    if (!kept) this.#endBackground(block)
    this.#changed.beat()
    this.#room.beat()
    this.#endIfIdle()
  }

  async #write(block: number, entry: FlyingBlock, source: string): Promise<boolean> {
    try {
      return await this.blob.write(block, entry.pieces, source)
    } catch (error: unknown) {
      this.#deps.log.debug({ digest: this.blob.digest, block, cause: describeError(error) }, 'block not stored')
      return false
    }
  }

  /**
   * The source is far enough ahead of its readers: what it sent would have to be read back from the disk, or fetched again. Several
   * connections run further ahead, onto the disk, because one alone would not fill the line.
   */
  #isAhead(): boolean {
    return this.#flying.isFull || (this.#flying.lingersEnough && this.#segments.size === 1)
  }

  /** Forgets what nobody waits for, which may make room for more. */
  #dropUnwanted(): void {
    this.#flying.dropUnwanted()
    this.#room.beat()
  }

  /** The last reader left while it was reading to the end: a blob that lacks little is completed, so that the next one finds it. */
  #finishNearlyDone(demand: Demand): void {
    if (this.#demands.size > 0 || this.#failed || demand.failure !== undefined || demand.end !== this.blob.size) return
    const missing = this.blob.missing({ first: 0, end: Math.ceil(this.blob.size / BLOCK_BYTES) })
    const blocks = missing.reduce((sum, run) => sum + run.end - run.first, 0)
    const [first] = missing
    if (first === undefined || blocks * BLOCK_BYTES > Math.max(NEARLY_DONE_BYTES, this.blob.size / 10)) return
    this.addBackground({
      key: demand.key,
      authorization: demand.authorization,
      start: first.first * BLOCK_BYTES,
      end: demand.end,
    })
  }

  #endIfIdle(): void {
    if (this.#idle || this.#demands.size > 0 || this.#segments.size > 0 || this.#writing > 0) return
    this.#idle = true
    this.#flying.clear()
    this.#hold[Symbol.dispose]()
    this.#deps.metrics.fills.dec()
    this.#deps.onIdle()
    this.#onIdle()
  }
}

function rangesOverlap(run: BlockRun, segments: Iterable<Segment>): boolean {
  for (const segment of segments) if (run.first < segment.run.end && segment.run.first < run.end) return true
  return false
}

function absentEverywhere(key: BlobKey): ShoalError {
  return new ShoalError('ERR_BLOB_UNAVAILABLE', `no source has ${key.digest} for ${key.registry}/${key.repository}`, {
    details: { absent: true },
  })
}
