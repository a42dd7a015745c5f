import { BLOCK_BYTES, BLOCKS_PER_CHUNK, blocksOf, type BlockRun, type ByteRange } from '../core/index.ts'

/** What one reader, or one prefetch, wants of a blob. */
export interface Wish {
  /** First byte that is still wanted. */
  readonly position: number
  /** Byte behind the last one wanted. */
  readonly end: number
  /** How far beyond `position` a fetch may begin, in bytes. */
  readonly window: number
}

/** What planSegment() has to know of the blob; both are asked block by block, so they must be cheap. */
export interface BlockState {
  isPresent(block: number): boolean
  /** Somebody is fetching it already. */
  isClaimed(block: number): boolean
}

/**
 * The next run of blocks to fetch for `wish`: it begins at the first block inside the window that is neither present nor claimed, and ends
 * before the next one that is, after `maxBlocks`, or with the wish itself. Never a block outside the wish. Undefined: nothing to fetch now.
 */
export function planSegment(wish: Wish, maxBlocks: number, state: BlockState): BlockRun | undefined {
  const wanted = blocksOf({ start: wish.position, end: wish.end })
  const horizon = blocksOf({ start: wish.position, end: Math.min(wish.end, wish.position + wish.window) }).end
  let first = wanted.first
  while (first < horizon && (state.isPresent(first) || state.isClaimed(first))) first += 1
  if (first >= horizon) return undefined
  let end = first + 1
  const limit = Math.min(wanted.end, first + Math.max(1, maxBlocks))
  while (end < limit && !state.isPresent(end) && !state.isClaimed(end)) end += 1
  return { first, end }
}

/** `range` widened to whole chunks of a blob of `size` bytes: the unit in which prefetch works. */
export function wholeChunks(range: ByteRange, size: number): ByteRange {
  const chunk = BLOCK_BYTES * BLOCKS_PER_CHUNK
  return { start: Math.floor(range.start / chunk) * chunk, end: Math.min(size, Math.ceil(range.end / chunk) * chunk) }
}
