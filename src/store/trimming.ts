import { BLOCKS_PER_CHUNK } from '../core/index.ts'
import type { BlobContext } from './blob-context.ts'
import { CHUNKS_PER_TURN, spansOf } from './chunk-use.ts'
import type { ChunkUse } from './eviction.ts'
import type { FileRef } from './layout.ts'

export interface TrimSubject {
  readonly context: BlobContext
  readonly ref: FileRef
  readonly size: number
  /** Makes a block missing. Returns the bytes that are thereby no longer present. */
  readonly drop: (block: number) => number
  /** Whether the blob has left the index: then its whole file goes, and there is no need to go on. */
  readonly isLeaving: () => boolean
}

/**
 * Gives chunks back to the disk: bits first, then rows, then bytes. `freed`: what was made missing. `punched` false: the disk punches no
 * holes, so the bytes are still there. Never rejects.
 */
export async function trimChunks(
  { context, ref, size, drop, isLeaving }: TrimSubject,
  chunks: readonly ChunkUse[],
): Promise<{ freed: number; punched: boolean }> {
  const { admission, batch, files, log } = context
  let [dropped, freed] = [0, 0]
  for (const { index } of chunks) {
    if (isLeaving()) break
    let bytes = 0
    for (let i = 0; i < BLOCKS_PER_CHUNK; i += 1) bytes += drop(index * BLOCKS_PER_CHUNK + i)
    admission.condemned(bytes)
    freed += bytes
    dropped += 1
    if (dropped % CHUNKS_PER_TURN === 0) await new Promise(setImmediate)
  }
  try {
    await batch.flush()
    await files.punch(ref, spansOf(chunks.slice(0, dropped), size))
    return { freed, punched: true }
  } catch (err: unknown) {
    log.warn({ err, digest: ref.digest }, 'holes could not be punched, the whole blob goes instead')
    return { freed, punched: false }
  } finally {
    admission.erased(freed)
  }
}
