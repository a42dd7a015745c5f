import { BLOCKS_PER_CHUNK, chunkCount, blockCount, type BlockRun } from '../core/index.ts'

/** One row of the index: a chunk's blocks. */
export interface ChunkRow {
  readonly index: number
  /** Bit i: block i of the chunk is present. */
  readonly mask: number
  /** 16 crc32s and 16 source ids, little-endian. */
  readonly crcs: Uint8Array
  readonly sources: Uint8Array
}

/** Reads the rows of chunks first ... end-1. Undefined: the index could not be read now. */
export type LoadChunks = (first: number, end: number) => ChunkRow[] | undefined

/** Chunk rows fetched by one statement: 1 GiB of blob, well under a millisecond. */
export const WINDOW_CHUNKS = 256
const WINDOW_BLOCKS = WINDOW_CHUNKS * BLOCKS_PER_CHUNK
const CRC_BYTES = 4
const SOURCE_BYTES = 2

/**
 * Which blocks of one blob are here, and which of them were checked in this run. Both are bitmaps (32-bit words, little end first) in one
 * shared buffer, presence first, so that other threads can read them. Rows are read in windows when first asked for. A block is
 * checked only if it is present. Single-threaded writer.
 */
export class BlockMap {
  readonly blocks: number
  readonly shared: SharedArrayBuffer
  readonly #load: LoadChunks
  readonly #present: Uint32Array<SharedArrayBuffer>
  readonly #checked: Uint32Array<SharedArrayBuffer>
  readonly #crcs: Uint32Array
  readonly #sources: Uint16Array
  /** When each chunk was last used in this run, in turns; 0: not yet. */
  readonly #turns: Float64Array
  readonly #loaded: Uint8Array
  #drops = 0

  constructor(size: number, load: LoadChunks) {
    this.blocks = blockCount(size)
    this.#load = load
    const words = Math.ceil(this.blocks / 32)
    this.shared = new SharedArrayBuffer(words * 8)
    this.#present = new Uint32Array(this.shared, 0, words)
    this.#checked = new Uint32Array(this.shared, words * 4, words)
    this.#crcs = new Uint32Array(this.blocks)
    this.#sources = new Uint16Array(this.blocks)
    this.#turns = new Float64Array(chunkCount(size))
    this.#loaded = new Uint8Array(Math.ceil(this.blocks / WINDOW_BLOCKS))
  }

  /** Bytes of memory that a blob of `size` bytes takes here. */
  static bytesFor(size: number): number {
    return Math.ceil(blockCount(size) * (CRC_BYTES + SOURCE_BYTES + 0.25) + chunkCount(size) * 8)
  }

  /** Counts blocks dropped so far: two equal readings mean that nothing present in between went away. */
  get drops(): number {
    return this.#drops
  }

  has(block: number): boolean {
    return this.ready(block) && this.#bit(this.#present, block)
  }

  /** Present, and its bytes matched its crc32 in this run. Needs no row. */
  isChecked(block: number): boolean {
    return this.#bit(this.#checked, block)
  }

  /** Whether the rows around `block` are in memory; reads them if not. False: the index could not be read now. */
  ready(block: number): boolean {
    const window = Math.floor(block / WINDOW_BLOCKS)
    const loaded = this.#loaded[window]
    if (loaded === undefined) return false
    return loaded === 1 || this.#loadWindow(window)
  }

  /** Reads every row, one window per turn of the event loop. False: the index could not be read now. */
  async readyAll(): Promise<boolean> {
    for (let window = 0; window < this.#loaded.length; window += 1) {
      if (this.#loaded[window] === 1) continue
      if (!this.#loadWindow(window)) return false
      await new Promise(resolve => setImmediate(resolve))
    }
    return true
  }

  /** Marks a block present and checked. Its window must be ready. */
  put(block: number, crc: number, source: number): void {
    this.#crcs[block] = crc
    this.#sources[block] = source
    Atomics.or(this.#checked, block >>> 5, 1 << (block & 31))
    Atomics.or(this.#present, block >>> 5, 1 << (block & 31))
  }

  setChecked(block: number): void {
    if (this.has(block)) Atomics.or(this.#checked, block >>> 5, 1 << (block & 31))
  }

  /** The block must prove itself again before it is served. */
  clearChecked(block: number): void {
    Atomics.and(this.#checked, block >>> 5, ~(1 << (block & 31)))
  }

  /** Makes a block absent. False: it was already. */
  drop(block: number): boolean {
    if (!this.has(block)) return false
    Atomics.and(this.#present, block >>> 5, ~(1 << (block & 31)))
    this.clearChecked(block)
    this.#crcs[block] = 0
    this.#sources[block] = 0
    this.#drops += 1
    return true
  }

  crc(block: number): number {
    return this.#crcs[block] ?? 0
  }

  source(block: number): number {
    return this.#sources[block] ?? 0
  }

  /** Merged runs of absent blocks inside `run`; what lies beyond the blob is neither. */
  missing(run: BlockRun): BlockRun[] {
    return this.#runs(run, false)
  }

  /** Merged runs of present blocks inside `run`. */
  present(run: BlockRun): BlockRun[] {
    return this.#runs(run, true)
  }

  /** The chunk as the index keeps it. */
  row(chunk: number): ChunkRow {
    const crcs = Buffer.alloc(BLOCKS_PER_CHUNK * CRC_BYTES)
    const sources = Buffer.alloc(BLOCKS_PER_CHUNK * SOURCE_BYTES)
    let mask = 0
    for (let i = 0; i < BLOCKS_PER_CHUNK; i += 1) {
      const block = chunk * BLOCKS_PER_CHUNK + i
      if (!this.#bit(this.#present, block)) continue
      mask |= 1 << i
      crcs.writeUInt32LE(this.crc(block), i * CRC_BYTES)
      sources.writeUInt16LE(this.source(block), i * SOURCE_BYTES)
    }
    return { index: chunk, mask, crcs, sources }
  }

  /** Notes that a chunk was used at `turn`, a number that only grows. */
  use(chunk: number, turn: number): void {
    this.#turns[chunk] = turn
  }

  lastUse(chunk: number): number {
    return this.#turns[chunk] ?? 0
  }

  #bit(words: Uint32Array, block: number): boolean {
    return ((words[block >>> 5] ?? 0) & (1 << (block & 31))) !== 0
  }

  #runs({ first, end }: BlockRun, wanted: boolean): BlockRun[] {
    const runs: BlockRun[] = []
    const last = Math.min(end, this.blocks)
    let start: number | undefined
    for (let block = Math.max(0, first); block < last; block += 1) {
      if (this.has(block) === wanted) start ??= block
      else if (start !== undefined) {
        runs.push({ first: start, end: block })
        start = undefined
      }
    }
    if (start !== undefined) runs.push({ first: start, end: last })
    return runs
  }

  #loadWindow(window: number): boolean {
    const rows = this.#load(window * WINDOW_CHUNKS, (window + 1) * WINDOW_CHUNKS)
    if (rows === undefined) return false
    for (const row of rows) this.#adopt(row)
    this.#loaded[window] = 1
    return true
  }

  #adopt(row: ChunkRow): void {
    const crcs = Buffer.from(row.crcs.buffer, row.crcs.byteOffset, row.crcs.byteLength)
    const sources = Buffer.from(row.sources.buffer, row.sources.byteOffset, row.sources.byteLength)
    for (let i = 0; i < BLOCKS_PER_CHUNK; i += 1) {
      const block = row.index * BLOCKS_PER_CHUNK + i
      if ((row.mask & (1 << i)) === 0 || block >= this.blocks) continue
      if (crcs.byteLength < (i + 1) * CRC_BYTES || sources.byteLength < (i + 1) * SOURCE_BYTES) continue
      this.#crcs[block] = crcs.readUInt32LE(i * CRC_BYTES)
      this.#sources[block] = sources.readUInt16LE(i * SOURCE_BYTES)
      Atomics.or(this.#present, block >>> 5, 1 << (block & 31))
    }
  }
}
