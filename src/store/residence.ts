import { BLOCK_BYTES, blockLength } from '../core/index.ts'
import type { BlobContext } from './blob-context.ts'
import type { BlockMap } from './block-map.ts'
import type { FileRef } from './layout.ts'

/** A block that was wholly in the page cache is taken to be there for this long: what was used lately is not what the kernel drops first. */
const BELIEVED_US = 5_000_000

export interface ResidenceDeps {
  readonly context: BlobContext
  readonly map: BlockMap
  readonly ref: FileRef
  readonly size: number
}

/** Which checked blocks of one blob are in the page cache, as far as was seen lately. There is no cheaper way to ask the kernel. */
export class Residence {
  /** A whole block is read to find out; its bytes are thrown away, so one buffer serves everybody. */
  static readonly #scratch = Buffer.allocUnsafeSlow(BLOCK_BYTES)
  readonly #deps: ResidenceDeps
  /** Until when each block is believed to be there, in microseconds since 1970. Made at first use: few blobs are served this way. */
  #until: Float64Array | undefined

  constructor(deps: ResidenceDeps) {
    this.#deps = deps
  }

  /** Whether blocks first ... last are checked and in the page cache. Never waits for the disk. */
  covers(first: number, last: number): boolean {
    const { context, map } = this.#deps
    this.#until ??= new Float64Array(map.blocks)
    const now = context.stamp()
    for (let block = first; block <= last; block += 1) {
      if (!map.isChecked(block)) return false
      if ((this.#until[block] ?? 0) > now) continue
      if (!this.#isHere(block)) return false
      this.#until[block] = now + BELIEVED_US
    }
    return true
  }

  #isHere(block: number): boolean {
    const { context, ref, size } = this.#deps
    const target = Residence.#scratch.subarray(0, blockLength(block, size))
    return context.files.readNow(ref, target, block * BLOCK_BYTES)
  }
}
