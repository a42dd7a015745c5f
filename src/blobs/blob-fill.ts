import {
  BLOCKS_PER_CHUNK,
  BLOCK_BYTES,
  isHang,
  ShoalError,
  asError,
  blocksOf,
  describeError,
  type BlobKey,
  type BlockRun,
  type ByteRange,
  type Clock,
} from '../core/index.ts'
import type { StoredBlob } from '../store/index.ts'
import { Demand, type DemandOptions } from './demand.ts'
import { FlyingBlocks, type FlyingBlock } from './flying-blocks.ts'
import type { Parallelism } from './parallelism.ts'
import { planSegment, type BlockState } from './plan.ts'
import type { Precedence } from './precedence.ts'
import { Pulse } from './pulse.ts'
import { Segment } from './segment.ts'
import { fetchDirect, fetchSegment, type AdoptedBody, type FetchDeps } from './segment-fetch.ts'

/** Requests that one fill may have under way when readers are blocked at many different places. */
const MAX_SEGMENTS = 32
/** Blocks of one segment that may wait for the disk before the source is made to wait. */
const MAX_PENDING_WRITES = 8
/** A fetch that everyone has left is finished all the same when so little is missing. */
const NEARLY_DONE_BYTES = 1024 * 1024
/** How long a body that has begun waits for a host that hangs, as long as a slow one would be given, and how often it looks. */
const HANG_PATIENCE_MS = 30_000
const HANG_PAUSE_MS = 500
/** A reader that waited within this time counts as hungry: it empties what arrived ahead of it in bursts. */
const HUNGRY_MS = 100
/** What gives way to on-demand readers gets on all the same, one segment after this long without. */
const STARVED_MS = 2000
/** How often it is looked whether they still wait: readers of other blobs do not tell. */
const STANDBY_MS = 100

export interface FillDeps extends FetchDeps {
  readonly clock: Clock
  readonly parallelism: Parallelism
  readonly precedence: Precedence
  /** Called once, when no demand and no fetch is left. */
  readonly onIdle: () => void
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
  /** Something gives way, and will be looked at again. */
  #standby: AbortController | undefined

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
    demand.progressAt = this.#deps.clock.now()
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

  /** A demand that ends by itself when every block of it is present, or when one cannot be had. Once for the same bytes. */
  addBackground(options: Omit<DemandOptions, 'background'>): void {
    const isNeeded = options.start < options.end && !this.#failed && !this.#isUnderWay(options)
    if (isNeeded) this.add({ ...options, background: true })
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
    const { parallelism, precedence, clock } = this.#deps
    const isFirst = demand.urgency === 'demand'
    demand.grow((parallelism.connections + 1) * parallelism.segmentBytes)
    // Every piece wakes every reader: to look after all the others as well would cost their square.
    if (!this.#idle) this.#startFor(demand)
    this.#hungryAt = clock.now()
    const changed = this.#changed.wait(signal)
    this.#room.beat()
    if (isFirst) precedence.beginWait()
    try {
      await changed
    } finally {
      this.#hungryAt = clock.now()
      if (isFirst) precedence.endWait(this.#hungryAt)
    }
  }

  advance(demand: Demand, bytes: number): void {
    const before = Math.floor(demand.position / BLOCK_BYTES)
    demand.position += bytes
    demand.hungSince = undefined
    if (demand.urgency === 'prefetch') demand.progressAt = this.#deps.clock.now()
    if (Math.floor(demand.position / BLOCK_BYTES) === before && demand.position < demand.end) return
    this.#dropUnwanted()
    this.#pump()
  }

  /** Bytes straight from the sources, past the store: for a reader whose blocks are there but cannot be read. */
  direct(
    range: ByteRange,
    demand: Demand,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    return fetchDirect(this.#deps, range, demand, signal)
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
    this.#standby?.abort()
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

  /** Whether the very same is being fetched in the background. */
  #isUnderWay({ start, end, urgency }: Omit<DemandOptions, 'background'>): boolean {
    for (const demand of this.#demands) {
      if (demand.background && demand.start === start && demand.end === end && demand.urgency === urgency) return true
    }
    return false
  }

  /** Starts what may be fetched now: for readers first, and for a reader that would otherwise wait for nothing at once. */
  #pump(): void {
    if (this.#failed || this.#idle) return
    for (const demand of this.#demands) if (!demand.background && demand.urgency === 'demand') this.#startFor(demand)
    for (const demand of this.#demands) if (!demand.background && demand.urgency === 'prefetch') this.#startFor(demand)
    for (const demand of this.#demands) if (demand.background) this.#startBackground(demand)
  }

  #startFor(demand: Demand): void {
    const { parallelism } = this.#deps
    if (this.#standsBack(demand)) return
    if (this.#readsWhole(demand.key)) {
      this.#startWhole(demand)
      return
    }
    while (demand.failure === undefined) {
      if (!this.#isBlocked(demand) && (this.#careful || this.#busy() >= parallelism.connections)) return
      if (this.#segments.size >= MAX_SEGMENTS) return
      const run = planSegment(demand, this.#maxBlocks(demand), this.#state)
      if (run === undefined || !this.#takesTurn(demand)) return
      this.#start(new Segment(run, this.blob.size, demand), demand)
      if (demand.urgency === 'prefetch') return
    }
  }

  /** Every part would cost the bytes before it as well, so one request brings all that is missing, in order. */
  #startWhole(demand: Demand): void {
    if (this.#segments.size > 0 || demand.failure !== undefined || !this.#isBlocked(demand)) return
    const { size } = this.blob
    const run = planSegment({ position: 0, end: size, window: size }, Infinity, this.#state)
    if (run !== undefined && this.#takesTurn(demand)) this.#start(new Segment(run, size, demand), demand)
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
    } else if (this.#busy() < this.#deps.parallelism.connections && !this.#standsBack(demand)) {
      const run = planSegment(demand, this.#maxBlocks(demand), this.#state)
      if (run !== undefined && this.#takesTurn(demand)) this.#start(new Segment(run, this.blob.size, demand), demand)
    }
  }

  /** What is not urgent comes in short requests, so that whoever comes upon one does not wait for long. */
  #maxBlocks({ urgency, background, window }: Demand): number {
    if (urgency === 'prefetch') return BLOCKS_PER_CHUNK
    const { segmentBytes } = this.#deps.parallelism
    return (background ? segmentBytes : Math.min(segmentBytes, window)) / BLOCK_BYTES
  }

  /** What is not urgent takes one connection, and none while an on-demand reader of the registry waits, unless that goes on for too long. */
  #standsBack(demand: Demand): boolean {
    if (demand.urgency === 'demand') return false
    for (const segment of this.#segments) if (segment.owner === demand) return true
    const { clock, precedence } = this.#deps
    const now = clock.now()
    if (precedence.isFree(now) || now - demand.progressAt >= STARVED_MS) return false
    this.#pumpLater()
    return true
  }

  /** A fetch that is not urgent has its turn, among those of all blobs of the registry. To be followed by #start(). */
  #takesTurn(demand: Demand): boolean {
    const { clock, precedence } = this.#deps
    if (demand.urgency === 'demand' || precedence.begin(demand, clock.now())) return true
    this.#pumpLater()
    return false
  }

  #pumpLater(): void {
    if (this.#standby !== undefined) return
    const standby = new AbortController()
    this.#standby = standby
    // Rejects when the fill has ended: then there is nothing to look at.
    this.#deps.clock.sleep(STANDBY_MS, { signal: standby.signal }).then(
      () => {
        this.#standby = undefined
        this.#pump()
      },
      () => undefined,
    )
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
      const storing = reservation !== undefined
      await fetchSegment(this.#deps, segment, { fetcher: demand, begun }, (piece, source) =>
        this.#receive(segment, piece, source, storing),
      )
      metrics.fetches.inc({ outcome: 'done' })
    } catch (error: unknown) {
      metrics.fetches.inc({ outcome: segment.abort.signal.aborted ? 'aborted' : 'failed' })
      this.#flying.dropPartial(segment.run)
      if (this.#waitsOut(demand, error)) await this.#pause(segment)
      else if (!segment.abort.signal.aborted) this.#fetchFailed(segment, demand, asError(error))
    } finally {
      reservation?.[Symbol.dispose]()
      demand.progressAt = this.#deps.clock.now()
      if (demand.urgency === 'prefetch') this.#deps.precedence.end()
      this.#segments.delete(segment)
      this.#pump()
      this.#changed.beat()
      this.#endIfIdle()
    }
  }

  /** A reader that has had bytes has nothing better to do than to wait for a host that hangs; one that has had none had better be told. */
  #waitsOut(demand: Demand, error: unknown): boolean {
    if (demand.background || demand.position === demand.start || !isHang(error)) return false
    const now = this.#deps.clock.now()
    demand.hungSince ??= now
    return now - demand.hungSince < HANG_PATIENCE_MS
  }

  async #pause(segment: Segment): Promise<void> {
    try {
      await this.#deps.clock.sleep(HANG_PAUSE_MS, { signal: segment.abort.signal })
    } catch {
      // Nobody waits any longer.
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
    // The last write may come after the last fetch, and what is in the background ends when all of it is there.
    if (this.#segments.size === 0) this.#pump()
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
      urgency: demand.urgency,
      start: first.first * BLOCK_BYTES,
      end: demand.end,
    })
  }

  #endIfIdle(): void {
    if (this.#idle || this.#demands.size > 0 || this.#segments.size > 0 || this.#writing > 0) return
    this.#idle = true
    this.#standby?.abort()
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
