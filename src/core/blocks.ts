import type { ByteRange } from './range.ts'

/** The unit that is present or absent in the store, with a crc32; the smallest fetch. */
export const BLOCK_BYTES = 256 * 1024
/** Blocks in a chunk: one bit each of a row's 16-bit mask. */
export const BLOCKS_PER_CHUNK = 16
/** One row in the index; the unit of ownership among peers. */
export const CHUNK_BYTES = BLOCK_BYTES * BLOCKS_PER_CHUNK

/** A run of blocks: first ... end-1. */
export interface BlockRun {
  readonly first: number
  readonly end: number
}

/** Blocks of a blob of `size` bytes; the last one may be short. */
export function blockCount(size: number): number {
  return Math.ceil(size / BLOCK_BYTES)
}

export function chunkCount(size: number): number {
  return Math.ceil(size / CHUNK_BYTES)
}

/** The blocks that hold `range`. Empty for an empty range. */
export function blocksOf(range: ByteRange): BlockRun {
  if (range.end <= range.start)
    return { first: Math.floor(range.start / BLOCK_BYTES), end: Math.floor(range.start / BLOCK_BYTES) }
  return { first: Math.floor(range.start / BLOCK_BYTES), end: Math.ceil(range.end / BLOCK_BYTES) }
}

/** The bytes of blocks first ... end-1 of a blob of `size` bytes. */
export function bytesOf(run: BlockRun, size: number): ByteRange {
  return { start: run.first * BLOCK_BYTES, end: Math.min(run.end * BLOCK_BYTES, size) }
}

/** Bytes of one block: BLOCK_BYTES, or less for the last. */
export function blockLength(block: number, size: number): number {
  return Math.min(BLOCK_BYTES, size - block * BLOCK_BYTES)
}
