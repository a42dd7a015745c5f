import { digestAlgorithm, digestHex, systemCode } from '../core/index.ts'
import type { BlobContext } from './blob-context.ts'
import type { BlockMap } from './block-map.ts'
import { isNotTheDisk, type BlockReader } from './block-reader.ts'
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

/** A block may go bad and be fetched again while a verdict is found; after so many attempts it stays open. */
const ATTEMPTS = 3

/**
 * Hashes the data file against the digest. Bytes that do not match are first compared with their own crc32s: if those disagree too, the
 * disk has changed what was written, the bad blocks are dropped, and the sources are not to blame.
 */
export async function proveBlob(subject: ProofSubject): Promise<Verdict> {
  const { context, map, isWhole } = subject
  const release = await context.hashing.acquire()
  try {
    if (!(await map.readyAll())) return { kind: 'open' }
    for (let attempt = 0; attempt < ATTEMPTS && isWhole(); attempt += 1) {
      const drops = map.drops
      const verdict = await judge(subject)
      // After a drop, the bytes that were hashed are not those that are here now.
      if (map.drops === drops || verdict.kind === 'lost') return verdict
    }
    return { kind: 'open' }
  } finally {
    release()
  }
}

/** A verdict on what is here now; valid only if nothing is dropped before it comes. */
async function judge(subject: ProofSubject): Promise<Verdict> {
  const { context, ref, size } = subject
  const algorithm = digestAlgorithm(ref.digest)
  try {
    const actual = await context.files.withDescriptor(ref, fd => context.hasher.hash(fd, size, algorithm))
    if (actual === digestHex(ref.digest)) return { kind: 'proven' }
    return (await matchesItsRows(subject)) ? { kind: 'disproven', actual } : { kind: 'open' }
  } catch (error: unknown) {
    const code = systemCode(error)
    if (code === 'ENOENT') return { kind: 'lost' }
    if (code === 'ECANCELED') return { kind: 'open' }
    context.log.warn({ err: error, digest: ref.digest }, 'blob could not be hashed')
    if (!isNotTheDisk(error)) await matchesItsRows(subject)
    return { kind: 'open' }
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

export interface FlushSubject {
  readonly context: BlobContext
  readonly ref: FileRef
  readonly isLeaving: () => boolean
}

/**
 * Waits until a proven blob is on the disk: what the index calls complete must have got there. `failed`: the disk lost some of the bytes, and
 * the kernel does not say which, nor a second time. `open`: nothing was learnt; the store closes, or this is no fault of the disk.
 */
export async function flushBlob({
  context,
  ref,
  isLeaving,
}: FlushSubject): Promise<'flushed' | 'failed' | 'lost' | 'open'> {
  const { files, flusher, disk, log } = context
  const release = await context.flushing.acquire()
  try {
    if (isLeaving()) return 'open'
    await files.withDescriptor(ref, fd => flusher.sync(fd))
    return 'flushed'
  } catch (error: unknown) {
    const code = systemCode(error)
    if (code === 'ENOENT') return 'lost'
    if (code === 'ECANCELED') return 'open'
    if (code === undefined || isNotTheDisk(error)) {
      log.warn({ err: error, digest: ref.digest }, 'blob could not be flushed')
      return 'open'
    }
    disk.trouble(error, 'blob did not reach the disk')
    return 'failed'
  } finally {
    release()
  }
}
