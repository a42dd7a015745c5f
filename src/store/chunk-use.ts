import { BLOCK_BYTES, BLOCKS_PER_CHUNK, CHUNK_BYTES, chunkCount } from '../core/index.ts'
import type { BlockMap } from './block-map.ts'
import type { FileSpan } from './data-files.ts'
import type { ChunkUse } from './eviction.ts'

/** What eviction wants to know of a blob's chunks. Every row of the map must be ready. */
export function chunkUses(map: BlockMap, size: number): ChunkUse[] {
  return Array.from({ length: chunkCount(size) }, (_, index) => {
    const first = index * BLOCKS_PER_CHUNK
    let presentBytes = 0
    for (const run of map.present({ first, end: first + BLOCKS_PER_CHUNK })) {
      presentBytes += Math.min(run.end * BLOCK_BYTES, size) - run.first * BLOCK_BYTES
    }
    return { index, presentBytes, lastUse: map.lastUse(index) }
  })
}

/** Where those chunks are in the data file. */
export function spansOf(chunks: readonly ChunkUse[], size: number): FileSpan[] {
  return chunks.map(({ index }) => ({
    start: index * CHUNK_BYTES,
    length: Math.min(CHUNK_BYTES, size - index * CHUNK_BYTES),
  }))
}
