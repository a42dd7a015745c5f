import { BLOCK_BYTES, blocksOf, errorCode, type ByteRange } from '../core/index.ts'
import type { BlobFill } from './blob-fill.ts'
import type { Demand } from './demand.ts'

/** Most bytes read from the store at once for a reader that is being streamed to. */
const MAX_READ_BYTES = 4 * BLOCK_BYTES

export interface Timings {
  /** Milliseconds spent on reading from the store. */
  store: number
  /** Milliseconds spent on waiting for sources. */
  origin: number
}

/**
 * The bytes of `range` in order, from memory, the store or the sources, whichever has them first. Exactly range.end - range.start bytes or
 * an error. Leaving early gives up the demand. Pieces belong to the receiver.
 */
export async function* readThrough(
  fill: BlobFill,
  demand: Demand,
  range: ByteRange,
  timings: Timings,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    while (demand.position < range.end) {
      signal?.throwIfAborted()
      const piece = fill.flyingPiece(demand) ?? (await readStored(fill, demand, range, timings, signal))
      if (piece === 'unreadable') {
        yield* fill.direct({ start: demand.position, end: range.end }, demand, signal)
        return
      }
      if (piece === undefined) {
        const before = performance.now()
        await fill.arrival(demand, signal)
        timings.origin += performance.now() - before
        continue
      }
      yield piece
      fill.advance(demand, piece.length)
    }
  } finally {
    fill.remove(demand)
  }
}

/**
 * As many stored bytes as follow the demand's position. Undefined: its first block is not in the store. 'unreadable': it is, but this process
 * cannot read it now (no descriptors, no memory), so waiting for it to arrive would be waiting for ever.
 */
async function readStored(
  fill: BlobFill,
  demand: Demand,
  range: ByteRange,
  timings: Timings,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | 'unreadable' | undefined> {
  const { blob } = fill
  const limit = Math.min(range.end, demand.position + MAX_READ_BYTES)
  const run = blocksOf({ start: demand.position, end: limit })
  let end = run.first
  while (end < run.end && blob.has(end)) end += 1
  if (end === run.first) return undefined
  const length = Math.min(limit, end * BLOCK_BYTES) - demand.position
  const before = performance.now()
  try {
    return await blob.read(demand.position, length, signal === undefined ? {} : { signal })
  } catch (error: unknown) {
    if (errorCode(error) === 'ERR_STORE_IO') return 'unreadable'
    throw error
  } finally {
    timings.store += performance.now() - before
  }
}
