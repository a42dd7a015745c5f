import { digestAlgorithm, digestHex, systemCode } from '../core/index.ts'
import type { BlobContext } from './blob-context.ts'
import type { BlockMap } from './block-map.ts'
import type { BlockReader } from './block-reader.ts'
import type { FileRef } from './layout.ts'

/** `open`: nothing was learnt; blocks were missing or went bad, the blob left, or the store closes. `lost`: there is no data file. */
export type Verdict =
  { readonly kind: 'proven' | 'open' | 'lost' } | { readonly kind: 'disproven'; /** Hex. */ readonly actual: string }

export interface ProofSubject {
  readonly context: BlobContext
  readonly ref: FileRef
  readonly size: number
  readonly map: BlockMap
  readonly reader: BlockReader
  /** Whether the blob is still in the index and the store open. */
  readonly isWanted: () => boolean
  /** Whether the blob is still in the index with every block. */
  readonly isWhole: () => boolean
}

/**
 * Hashes the data file against the digest. Bytes that do not match are first compared with their own crc32s: if those disagree too, the
 * disk has changed what was written, the bad blocks are dropped, and the sources are not to blame.
 */
export async function proveBlob(subject: ProofSubject): Promise<Verdict> {
  const { context, ref, size, map, isWhole } = subject
  const release = await context.hashing.acquire()
  try {
    if (!(await map.readyAll()) || !isWhole()) return { kind: 'open' }
    const drops = map.drops
    const algorithm = digestAlgorithm(ref.digest)
    const actual = await context.files.withDescriptor(ref, fd => context.thread.hash(fd, size, algorithm))
    if (map.drops !== drops || !isWhole()) return { kind: 'open' }
    if (actual === digestHex(ref.digest)) return { kind: 'proven' }
    return (await matchesItsRows(subject)) ? { kind: 'disproven', actual } : { kind: 'open' }
  } catch (error: unknown) {
    const code = systemCode(error)
    if (code === 'ENOENT') return { kind: 'lost' }
    if (code === 'ECANCELED') return { kind: 'open' }
    context.log.warn({ err: error, digest: ref.digest }, 'blob could not be hashed')
    await matchesItsRows(subject)
    return { kind: 'open' }
  } finally {
    release()
  }
}

/** Reads every block again; bad ones are dropped. */
async function matchesItsRows({ map, reader, isWanted, isWhole }: ProofSubject): Promise<boolean> {
  let good = true
  for (let block = 0; block < map.blocks; block += 1) {
    if (!isWanted()) return false
    good = (await reader.inspect(block)) && good
  }
  return good && isWhole()
}
