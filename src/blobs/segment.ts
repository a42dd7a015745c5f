import { BLOCK_BYTES, blockLength, bytesOf, type BlockRun } from '../core/index.ts'
import type { FlyingBlocks } from './flying-blocks.ts'

/**
 * One run of blocks being fetched by one request at a time. It cuts the stream into blocks and remembers them until the store has them;
 * who fetches and who writes is the fill's business.
 */
export class Segment {
  readonly run: BlockRun
  readonly end: number
  readonly abort = new AbortController()
  /** Whoever asked for it: its failure is that reader's failure. */
  readonly owner: object
  /** Next byte expected from the source. */
  position: number
  /** Writes that have not been answered yet. */
  writing = 0
  readonly #size: number

  constructor(run: BlockRun, size: number, owner: object) {
    const { start, end } = bytesOf(run, size)
    this.run = run
    this.position = start
    this.end = end
    this.owner = owner
    this.#size = size
  }

  get remaining(): number {
    return this.end - this.position
  }

  /** Less than a quarter to go, so the next request may already be sent: its delay hides behind what is still to come. */
  get nearlyDone(): boolean {
    return this.remaining * 4 <= this.run.end * BLOCK_BYTES - this.run.first * BLOCK_BYTES
  }

  /**
   * Takes the next bytes off the wire. Blocks are created in `flying` as they begin; those that became whole are returned.
   * `piece` must not reach beyond the segment.
   */
  take(piece: Uint8Array, flying: FlyingBlocks): number[] {
    const whole: number[] = []
    let offset = 0
    while (offset < piece.length) {
      const block = Math.floor(this.position / BLOCK_BYTES)
      const entry = flying.begin(block)
      const wanted = blockLength(block, this.#size) - entry.length
      const part = piece.subarray(offset, offset + wanted)
      entry.pieces.push(part)
      entry.length += part.length
      this.position += part.length
      offset += part.length
      if (part.length === wanted) whole.push(block)
    }
    return whole
  }
}
