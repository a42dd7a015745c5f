import { BLOCK_BYTES, blockLength, bytesOf, type BlockRun } from '../core/index.ts'

/** Blocks that the store took, kept for readers that are just behind: reading them back would cost more than keeping them. */
const MAX_LINGERING_BYTES = 4 * 1024 * 1024
/** Blocks that the store did not take. */
const MAX_UNSTORED_BYTES = 4 * 1024 * 1024

/** A block in memory: on its way in, or waiting for its readers. */
export interface FlyingBlock {
  /** What has been received, in order. */
  readonly pieces: Uint8Array[]
  length: number
  state: 'arriving' | 'stored' | 'unstored'
}

/** The blocks of one blob that are in memory, within fixed bounds. Whether a reader still wants some bytes is asked of `isWanted`. */
export class FlyingBlocks {
  readonly #size: number
  readonly #isWanted: (start: number, end: number) => boolean
  /** In the order in which they began to arrive. */
  readonly #blocks = new Map<number, FlyingBlock>()
  #lingering = 0
  #unstored = 0

  constructor(deps: { isWanted: (start: number, end: number) => boolean }, options: { size: number }) {
    this.#isWanted = deps.isWanted
    this.#size = options.size
  }

  /** More would have to be read back from the disk by readers that are near. */
  get lingersEnough(): boolean {
    return this.#lingering >= MAX_LINGERING_BYTES
  }

  /** More would have to be fetched again by readers that are near. */
  get isFull(): boolean {
    return this.#unstored >= MAX_UNSTORED_BYTES
  }

  has(block: number): boolean {
    return this.#blocks.has(block)
  }

  isWhole(block: number): boolean {
    return this.#blocks.get(block)?.length === blockLength(block, this.#size)
  }

  get(block: number): FlyingBlock | undefined {
    return this.#blocks.get(block)
  }

  /** The block, begun if it was not there. */
  begin(block: number): FlyingBlock {
    const known = this.#blocks.get(block)
    if (known !== undefined) return known
    const entry: FlyingBlock = { pieces: [], length: 0, state: 'arriving' }
    this.#blocks.set(block, entry)
    return entry
  }

  /** In memory, the piece that holds the byte at `position`, from that byte on. */
  pieceAt(position: number): Uint8Array | undefined {
    const block = Math.floor(position / BLOCK_BYTES)
    const entry = this.#blocks.get(block)
    const offset = position - block * BLOCK_BYTES
    if (entry === undefined || offset >= entry.length) return undefined
    let start = 0
    for (const piece of entry.pieces) {
      if (offset < start + piece.length) return offset === start ? piece : piece.subarray(offset - start)
      start += piece.length
    }
    return undefined
  }

  /** The store has taken a whole block, or has not. Beyond the bounds the oldest go, whoever still wants them. */
  settle(block: number, state: 'stored' | 'unstored'): void {
    const entry = this.#blocks.get(block)
    if (entry?.state !== 'arriving') return
    entry.state = state
    if (state === 'stored') this.#lingering += entry.length
    else this.#unstored += entry.length
    this.dropUnwanted()
    for (const [oldest, candidate] of this.#blocks) {
      const tooMany = this.#lingering > MAX_LINGERING_BYTES + BLOCK_BYTES
      const tooFull = this.#unstored > MAX_UNSTORED_BYTES + BLOCK_BYTES
      if (!tooMany && !tooFull) return
      if ((tooMany && candidate.state === 'stored') || (tooFull && candidate.state === 'unstored'))
        this.#drop(oldest, candidate)
    }
  }

  /** Forgets what no reader wants any longer. */
  dropUnwanted(): void {
    if (this.#lingering === 0 && this.#unstored === 0) return
    for (const [block, entry] of this.#blocks) {
      if (entry.state === 'arriving') continue
      const { start, end } = bytesOf({ first: block, end: block + 1 }, this.#size)
      if (!this.#isWanted(start, end)) this.#drop(block, entry)
    }
  }

  /** Forgets blocks of a broken segment that will not be completed. */
  dropPartial(run: BlockRun): void {
    for (let block = run.first; block < run.end; block += 1) {
      const entry = this.#blocks.get(block)
      if (entry !== undefined && entry.length < blockLength(block, this.#size)) this.#blocks.delete(block)
    }
  }

  clear(): void {
    this.#blocks.clear()
    this.#lingering = 0
    this.#unstored = 0
  }

  #drop(block: number, entry: FlyingBlock): void {
    this.#blocks.delete(block)
    if (entry.state === 'stored') this.#lingering -= entry.length
    else if (entry.state === 'unstored') this.#unstored -= entry.length
  }
}
