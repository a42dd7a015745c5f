import { crc32 } from 'node:zlib'
import {
  BLOCK_BYTES,
  BLOCKS_PER_CHUNK,
  blockLength,
  chunkCount,
  raceAbort,
  type BlockRun,
  type Digest,
} from '../core/index.ts'
import type { BatchMember } from './batch.ts'
import type { BlobContext } from './blob-context.ts'
import { BlockMap, type ChunkRow } from './block-map.ts'
import { BlockReader, type BadBlock } from './block-reader.ts'
import { chunkUses } from './chunk-use.ts'
import { eraseFile, retireFile } from './departure.ts'
import { pickColdChunks } from './eviction.ts'
import type { BlobRow, BlobUpdate } from './index-db.ts'
import type { FileRef } from './layout.ts'
import { flushBlob, proveBlob } from './proof.ts'
import { Reservations } from './reservations.ts'
import { Residence } from './residence.ts'
import type { Reservation, StoredBlob } from './stored-blob.ts'
import { trimChunks } from './trimming.ts'

/** `leaving`: out of the index, but whoever holds it may still read. `gone`: dead. */
type Life = 'live' | 'leaving' | 'gone'

export type BlobFacts = Pick<BlobRow, 'id' | 'digest' | 'size' | 'mediaType' | 'state' | 'presentBytes' | 'accessed'>

/**
 * A blob's live state and its only writer. Order of a write: room, bytes, bit, row (in the batch). Order of a departure: index row, file
 * name, last reader, bytes, chunk rows. `busy` counts operations that use the data file; the file is erased only when it is 0.
 */
export class BlobEntry implements StoredBlob, BatchMember {
  readonly ref: FileRef
  readonly digest: Digest
  readonly size: number
  readonly #context: BlobContext
  readonly #map: BlockMap
  readonly #reader: BlockReader
  readonly #reservations: Reservations
  readonly #residence: Residence
  readonly #writing = new Map<number, Promise<boolean>>()
  #mediaType: string | undefined
  #state: 'partial' | 'complete' | 'quarantined'
  /** A complete blob has reached the disk, so that its row may say so. */
  #flushed: boolean
  #life: Life
  #presentBytes: number
  #accessed: number
  #holds = 0
  #busy = 0
  #turn = 0
  /** The blob has a row in open_blob. */
  #marked = false
  #proof: Promise<void> | undefined
  #trimming: Promise<unknown> | undefined
  #retired: Promise<boolean> | undefined
  #erasure: Promise<void> | undefined

  /** `detached`: known to nobody and dead from the start; what a caller gets when there can be no row. */
  constructor(
    context: BlobContext,
    options: { facts: BlobFacts; marked: boolean; detached?: 'quarantined' | 'unstored' },
  ) {
    const { id, digest, size, mediaType, state, presentBytes, accessed } = options.facts
    this.#context = context
    this.ref = { id, digest }
    this.digest = digest
    this.size = size
    this.#mediaType = mediaType
    this.#state = options.detached === 'quarantined' ? 'quarantined' : state
    this.#flushed = state === 'complete'
    this.#presentBytes = presentBytes
    this.#accessed = accessed
    this.#marked = options.marked
    this.#life = options.detached === undefined ? 'live' : 'gone'
    this.#map = new BlockMap(size, (first, end) => this.#loadChunks(first, end))
    this.#reservations = new Reservations(context.admission)
    this.#residence = new Residence({ context, map: this.#map, ref: this.ref, size })
    this.#reader = new BlockReader(
      {
        context,
        map: this.#map,
        onBad: (block, reason, error) => this.#onBad(block, reason, error),
        onLost: () => this.#onLost(),
        isGone: () => this.#isGone(),
      },
      { ref: this.ref, size },
    )
  }

  get mediaType(): string | undefined {
    return this.#mediaType
  }

  get state(): 'partial' | 'complete' | 'quarantined' {
    return this.#life === 'gone' && this.#state === 'complete' ? 'partial' : this.#state
  }

  get presentBytes(): number {
    return this.#life === 'gone' ? 0 : this.#presentBytes
  }

  /** Held, or being read, written, hashed or trimmed: not to be evicted. */
  get inUse(): boolean {
    return this.#holds > 0 || this.#busy > 0
  }

  /** Resolves when the bytes are deleted. Undefined: that has not begun. */
  get erasure(): Promise<void> | undefined {
    return this.#erasure
  }

  hold(): Disposable {
    this.touch()
    return this.keep()
  }

  /** hold() without counting as a use. */
  keep(): Disposable {
    this.#holds += 1
    let held = true
    return {
      [Symbol.dispose]: () => {
        if (!held) return
        held = false
        this.#holds -= 1
        this.#eraseIfLeft()
      },
    }
  }

  touch(): void {
    this.#context.assertOpen()
    if (this.#life !== 'live') return
    this.#accessed = this.#context.stamp()
    this.#context.batch.note(this)
  }

  has(block: number): boolean {
    this.#context.assertOpen()
    return this.#life !== 'gone' && this.#map.has(block)
  }

  missing(run: BlockRun): BlockRun[] {
    this.#context.assertOpen()
    if (this.#life !== 'gone') return this.#map.missing(run)
    const clipped = { first: Math.max(0, run.first), end: Math.min(run.end, this.#map.blocks) }
    return clipped.first < clipped.end ? [clipped] : []
  }

  readNow(target: Uint8Array, position: number): boolean {
    this.#context.assertOpen()
    const end = position + target.byteLength
    if (this.#life === 'gone' || position < 0 || end > this.size) return false
    if (target.byteLength === 0) return true
    const first = Math.floor(position / BLOCK_BYTES)
    const last = Math.floor((end - 1) / BLOCK_BYTES)
    for (let block = first; block <= last; block += 1) if (!this.#map.isChecked(block)) return false
    if (!this.#context.files.readNow(this.ref, target, position)) return false
    this.#used(first, last)
    this.#context.metrics.readFromMemory.inc(last - first + 1)
    return true
  }

  canSendNow(position: number, length: number): boolean {
    this.#context.assertOpen()
    if (this.#life === 'gone' || length === 0 || position + length > this.size) return false
    const first = Math.floor(position / BLOCK_BYTES)
    const last = Math.floor((position + length - 1) / BLOCK_BYTES)
    return this.#residence.covers(first, last)
  }

  sendNow(socket: number, position: number, length: number): number {
    this.#context.assertOpen()
    const sent = this.#context.files.sendNow(this.ref, socket, position, length)
    const first = Math.floor(position / BLOCK_BYTES)
    const last = Math.floor((position + length - 1) / BLOCK_BYTES)
    this.#used(first, last)
    this.#context.metrics.readFromMemory.inc(last - first + 1)
    return sent
  }

  async read(
    position: number,
    length: number,
    options: { signal?: AbortSignal } = {},
  ): Promise<Uint8Array | undefined> {
    this.#context.assertOpen()
    options.signal?.throwIfAborted()
    if (!(position >= 0 && length >= 0 && position + length <= this.size))
      throw new RangeError(`bytes ${position} + ${length} are not within a blob of ${this.size}`)
    if (this.#life === 'gone') return undefined
    if (length === 0) return new Uint8Array(0)
    this.#used(Math.floor(position / BLOCK_BYTES), Math.floor((position + length - 1) / BLOCK_BYTES))
    const work = this.#whileBusy(async () => {
      const bytes = await this.#reader.read(position, length)
      return this.#isGone() ? undefined : bytes
    })
    return raceAbort(work, options.signal)
  }

  async write(block: number, pieces: readonly Uint8Array[], source: string): Promise<boolean> {
    this.#context.assertOpen()
    const length = block >= 0 && block < this.#map.blocks ? blockLength(block, this.size) : undefined
    const given = pieces.reduce((sum, piece) => sum + piece.byteLength, 0)
    if (length !== given) throw new RangeError(`block ${block} has ${length ?? 'no'} bytes, not ${given}`)
    if (this.#life !== 'gone' && this.#map.has(block)) return true
    if (this.#life !== 'live') return false
    const before = this.#writing.get(block)
    if (before !== undefined) return before
    const work = this.#whileBusy(() => this.#store(block, pieces, source)).finally(() => this.#writing.delete(block))
    this.#writing.set(block, work)
    return work
  }

  reserve(bytes: number): Reservation | undefined {
    this.#context.assertOpen()
    const granted = this.#life === 'live' && this.#context.disk.writable ? this.#reservations.reserve(bytes) : undefined
    if (granted === undefined) this.#context.metrics.refusedReservations.inc()
    return granted
  }

  async settled(options: { signal?: AbortSignal } = {}): Promise<'complete' | 'quarantined' | 'partial'> {
    this.#context.assertOpen()
    options.signal?.throwIfAborted()
    this.prove()
    if (this.#proof !== undefined) await raceAbort(this.#proof, options.signal)
    return this.state
  }

  /** Starts to prove the digest, if every block is here and that was not done yet. */
  prove(): void {
    if (this.#life !== 'live' || this.#state !== 'partial' || this.#presentBytes < this.size) return
    this.#proof ??= this.#context.proofs.track(
      this.#whileBusy(() => this.#prove()).finally(() => {
        this.#proof = undefined
      }),
    )
  }

  adoptMediaType(mediaType: string): void {
    if (this.#mediaType !== undefined || this.#life !== 'live') return
    this.#mediaType = mediaType
    this.#context.disk.guard(() => {
      this.#context.index.setMediaType(this.ref.id, mediaType)
      return true
    })
  }

  /** Every present block, whether or not it was checked before. Runs of at most one chunk. */
  async *presentRuns(): AsyncGenerator<BlockRun> {
    for (let chunk = 0; chunk < chunkCount(this.size); chunk += 1) {
      if (this.#isGone()) return
      const first = chunk * BLOCKS_PER_CHUNK
      yield* this.#map.present({ first, end: first + BLOCKS_PER_CHUNK })
      if (chunk % BLOCKS_PER_CHUNK === 0) await new Promise(setImmediate)
    }
  }

  /**
   * Compares a block with its crc32 whatever was known. `drop`: a bad one becomes missing; otherwise it must prove itself again before
   * it is served. True: good, or no longer here.
   */
  async verify(block: number, options: { drop: boolean }): Promise<boolean> {
    if (!this.has(block)) return true
    this.#map.clearChecked(block)
    return this.#whileBusy(() => (options.drop ? this.#reader : this.#judge()).inspect(block))
  }

  blobUpdate(): BlobUpdate {
    return {
      id: this.ref.id,
      state: this.#state === 'complete' && this.#flushed ? 'complete' : 'partial',
      presentBytes: this.#presentBytes,
      accessed: this.#accessed,
    }
  }

  chunkUpdate(chunk: number): { blobId: number; row: ChunkRow } {
    return { blobId: this.ref.id, row: this.#map.row(chunk) }
  }

  /**
   * Leaves the index at once. Its bytes go when the last operation is over and, unless `abandon`, the last holder has left. Returns the
   * bytes that will be freed; 0 when it had left before.
   */
  depart(options: { abandon: boolean }): number {
    if (this.#life !== 'live') return 0
    const { batch, disk, index, admission, tasks } = this.#context
    this.#life = options.abandon || !this.inUse ? 'gone' : 'leaving'
    batch.forget(this)
    admission.condemned(this.#presentBytes)
    const doomed = disk.guard(() => {
      index.doom(this.ref)
      return true
    })
    this.#context.departed(this.ref, doomed !== true)
    this.#retired = tasks.track(retireFile(this.#context, this.ref))
    this.#eraseIfLeft()
    return this.#presentBytes
  }

  /** Gives at least `bytes` of the coldest chunks back to the disk, unless somebody uses the blob. Returns what was freed. */
  async trim(bytes: number): Promise<number> {
    if (this.#life !== 'live' || this.inUse) return 0
    return this.#whileBusy(async () => {
      if (!(await this.#map.readyAll())) return 0
      const chunks = pickColdChunks(await chunkUses(this.#map, this.size), bytes)
      if (this.#isLeaving() || this.#holds > 0 || this.#busy > 1 || chunks.length === 0 || !this.#mark()) return 0
      const subject = {
        context: this.#context,
        ref: this.ref,
        size: this.size,
        drop: (block: number) => (this.#drop(block) ? blockLength(block, this.size) : 0),
        isLeaving: () => this.#isLeaving(),
      }
      // Writes wait until the holes are there.
      const trimming = (this.#trimming = trimChunks(subject, chunks))
      const { freed, punched } = await trimming.finally(() => (this.#trimming = undefined))
      return punched ? freed : freed + this.depart({ abandon: false })
    })
  }

  #isLeaving(): boolean {
    return this.#life !== 'live'
  }

  #isGone(): boolean {
    return this.#life === 'gone'
  }

  async #whileBusy<T>(work: () => Promise<T>): Promise<T> {
    this.#busy += 1
    return this.#context.tasks.track(
      work().finally(() => {
        this.#busy -= 1
        this.#eraseIfLeft()
      }),
    )
  }

  #loadChunks(first: number, end: number): ChunkRow[] | undefined {
    const { disk, index } = this.#context
    return disk.guard(() => index.chunks(this.ref.id, first, end), 'index read failed')
  }

  #used(first: number, last: number): void {
    this.#turn += 1
    const end = Math.floor(last / BLOCKS_PER_CHUNK)
    for (let chunk = Math.floor(first / BLOCKS_PER_CHUNK); chunk <= end; chunk += 1) this.#map.use(chunk, this.#turn)
  }

  async #store(block: number, pieces: readonly Uint8Array[], source: string): Promise<boolean> {
    const { admission, disk, files, memory, metrics, sources } = this.#context
    const length = blockLength(block, this.size)
    // Without its rows the block's neighbours would be forgotten when its own row is written.
    if (!disk.writable || !this.#map.ready(block) || !this.#mark() || !this.#reservations.take(length)) return false
    try {
      await this.#trimming
      const crc = pieces.reduce((sum, piece) => crc32(piece, sum), 0)
      await files.write(this.ref, pieces, block * BLOCK_BYTES)
      if (this.#isLeaving()) {
        admission.giveBack(length)
        return false
      }
      this.#map.put(block, crc, sources.idOf(source))
    } catch (error: unknown) {
      admission.giveBack(length)
      disk.trouble(error, 'block could not be written')
      return false
    }
    admission.written(length)
    this.#presentBytes += length
    this.#used(block, block)
    memory.put(this.ref.id, block, pieces)
    this.#context.batch.note(this, Math.floor(block / BLOCKS_PER_CHUNK))
    metrics.blocksWritten.inc()
    this.prove()
    return true
  }

  /** The data file is about to change: after a crash the scrub shall look at it. False: the index refused. */
  #mark(): boolean {
    if (this.#marked) return true
    const { disk, index } = this.#context
    const done = disk.guard(() => {
      index.markOpen(this.ref.id)
      return true
    })
    this.#marked = done === true
    return this.#marked
  }

  /** A block is no longer what the index says. The row follows in the batch; until then the crc32 speaks for itself. */
  #drop(block: number): boolean {
    if (!this.#map.drop(block)) return false
    this.#context.memory.drop(this.ref.id, block)
    // One that is leaving is counted as condemned in full.
    if (this.#isLeaving()) return false
    this.#presentBytes -= blockLength(block, this.size)
    this.#state = 'partial'
    this.#flushed = false
    this.#context.batch.note(this, Math.floor(block / BLOCKS_PER_CHUNK))
    return true
  }

  #onBad(block: number, reason: BadBlock, error: unknown): void {
    if (!this.#map.has(block)) return
    const source = this.#context.sources.nameOf(this.#map.source(block))
    this.#context.metrics.badBlocks.inc()
    this.#context.log.warn({ digest: this.digest, block, reason, source, err: error }, 'bad block dropped')
    if (!this.#drop(block)) return
    this.#context.admission.forgotten(blockLength(block, this.size))
    this.#mark()
  }

  #onLost(event = 'data file is missing, blob forgotten'): void {
    // Whoever holds a blob that was removed has nothing left to read.
    if (this.#life === 'leaving') this.#life = 'gone'
    if (this.#isLeaving()) return
    this.#context.log.warn({ digest: this.digest, bytes: this.#presentBytes }, event)
    this.depart({ abandon: true })
  }

  /** A reader that only reports. */
  #judge(): BlockReader {
    const { log, metrics } = this.#context
    const onBad = (block: number, reason: BadBlock): void => {
      metrics.badBlocks.inc()
      log.warn({ digest: this.digest, block, reason }, 'bad block found')
    }
    return new BlockReader(
      { context: this.#context, map: this.#map, onBad, onLost: () => this.#onLost(), isGone: () => this.#isGone() },
      { ref: this.ref, size: this.size },
    )
  }

  async #prove(): Promise<void> {
    const verdict = await proveBlob({
      context: this.#context,
      ref: this.ref,
      size: this.size,
      map: this.#map,
      reader: this.#reader,
      isWanted: () => !this.#isLeaving() && this.#context.isOpen(),
      isWhole: () => !this.#isLeaving() && this.#recount(),
    })
    if (this.#isLeaving()) return
    // A block may have been dropped since the verdict.
    if (verdict.kind === 'proven' && this.#presentBytes === this.size) {
      this.#state = 'complete'
      const { batch, proofs, tasks } = this.#context
      // Never rejects.
      void proofs.track(tasks.track(this.#flush()))
      // Whoever hears that the blob is complete finds it again after a kill, its blocks at least.
      await batch.flush()
    } else if (verdict.kind === 'disproven') this.#quarantine(verdict.actual)
    else if (verdict.kind === 'lost') this.#onLost()
  }

  /** Has a proven blob's row say so once the disk has its bytes. Nobody waits for this, eviction neither. Never rejects. */
  async #flush(): Promise<void> {
    const { batch } = this.#context
    const { drops } = this.#map
    const outcome = await flushBlob({ context: this.#context, ref: this.ref, isLeaving: () => this.#isLeaving() })
    if (outcome === 'failed' || outcome === 'lost') this.#onLost('data file did not reach the disk, blob forgotten')
    // A block that was dropped and fetched again since was proven and is flushed with the rest by another run of this.
    if (outcome !== 'flushed' || this.#isLeaving() || this.#state !== 'complete' || this.#map.drops !== drops) return
    this.#flushed = true
    this.#marked = false
    batch.note(this)
    await batch.flush()
  }

  /** Whether every block is here, by the bitmap. Corrects the sum if it says otherwise (a crash between two transactions). */
  #recount(): boolean {
    const missing = this.#map.missing({ first: 0, end: this.#map.blocks })
    if (missing.length === 0) return true
    let bytes = this.size
    for (const { first, end } of missing) bytes -= Math.min(end * BLOCK_BYTES, this.size) - first * BLOCK_BYTES
    this.#context.admission.forgotten(this.#presentBytes - bytes)
    this.#presentBytes = bytes
    this.#context.batch.note(this)
    return false
  }

  #quarantine(actual: string): void {
    const { log, metrics, quarantined, sources } = this.#context
    const ids = new Set(Array.from({ length: this.#map.blocks }, (_, block) => this.#map.source(block)))
    const names = [...ids].map(id => sources.nameOf(id)).filter(name => name !== undefined)
    metrics.quarantined.inc()
    log.error({ digest: this.digest, actual, sources: names }, 'blob does not hash to its digest, quarantined')
    this.#state = 'quarantined'
    this.depart({ abandon: true })
    quarantined({ digest: this.digest, sources: names })
  }

  #eraseIfLeft(): void {
    if (this.#life === 'leaving' && !this.inUse) this.#life = 'gone'
    const retired = this.#retired
    if (this.#life !== 'gone' || this.#busy > 0 || retired === undefined || this.#context.isSealed()) return
    this.#retired = undefined
    const erase = (done: boolean): Promise<void> | undefined =>
      done ? eraseFile(this.#context, this.ref, this.#presentBytes) : undefined
    this.#erasure = this.#context.tasks.track(retired.then(erase))
  }
}
