import { BLOCK_BYTES, BLOCKS_PER_CHUNK, CHUNK_BYTES, chunkCount } from '../core/index.ts'
import type { BlockMap } from './block-map.ts'
import type { FileSpan } from './data-files.ts'
import type { ChunkUse } from './eviction.ts'

/** Chunks whose blocks are gone through in one turn of the event loop. */
export const CHUNKS_PER_TURN = 64

/** What eviction wants to know of a blob's chunks. Every row of the map must be ready. What changes meanwhile may or may not show. */
export async function chunkUses(map: BlockMap, size: number): Promise<ChunkUse[]> {
  const uses: ChunkUse[] = []
  for (let index = 0; index < chunkCount(size); index += 1) {
    if (index % CHUNKS_PER_TURN === CHUNKS_PER_TURN - 1) await new Promise(setImmediate)
    const first = index * BLOCKS_PER_CHUNK
    let presentBytes = 0
    for (const run of map.present({ first, end: first + BLOCKS_PER_CHUNK })) {
      presentBytes += Math.min(run.end * BLOCK_BYTES, size) - run.first * BLOCK_BYTES
    }
    uses.push({ index, presentBytes, lastUse: map.lastUse(index) })
  }
  return uses
}

/** Where those chunks are in the data file. */
export function spansOf(chunks: readonly ChunkUse[], size: number): FileSpan[] {
  return chunks.map(({ index }) => ({
    start: index * CHUNK_BYTES,
    length: Math.min(CHUNK_BYTES, size - index * CHUNK_BYTES),
  }))
}
