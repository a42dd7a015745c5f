import { BLOCK_BYTES, type Digest, type Logger } from '../core/index.ts'
import type { BlobEntry } from './blob-entry.ts'

export interface VerifyOptions {
  /** Absent: every blob. Unknown ones are passed over. */
  readonly digests?: readonly Digest[]
  /** False: bad blocks are only reported, and checked again before they are next served. Default true: they become missing. */
  readonly repair?: boolean
  readonly onProgress?: (done: VerifyProgress) => void
  readonly signal?: AbortSignal
}

export interface VerifyProgress {
  readonly checkedBytes: number
  readonly totalBytes: number
  readonly badBlocks: number
}

export interface VerifyReport {
  readonly blobs: number
  readonly checkedBytes: number
  readonly badBlocks: number
  /** Blobs with bad blocks, and those blocks. */
  readonly bad: readonly { readonly digest: Digest; readonly blocks: readonly number[] }[]
}

export interface VerifySubject {
  readonly digest: Digest
  readonly presentBytes: number
}

export interface VerifyDeps {
  readonly subjects: readonly VerifySubject[]
  readonly find: (digest: Digest) => BlobEntry | undefined
  readonly log: Logger
}

/** Compares every present block with its crc32, one after the other. Throws `signal.reason` when aborted. */
export async function verifyBlobs(deps: VerifyDeps, options: VerifyOptions): Promise<VerifyReport> {
  const totalBytes = deps.subjects.reduce((sum, { presentBytes }) => sum + presentBytes, 0)
  const bad: { digest: Digest; blocks: number[] }[] = []
  let [blobs, checkedBytes, badBlocks] = [0, 0, 0]
  for (const { digest } of deps.subjects) {
    const blob = deps.find(digest)
    if (blob === undefined) continue
    const blocks = await verifyBlob(blob, options, (bytes, badHere) => {
      checkedBytes += bytes
      options.onProgress?.({ checkedBytes, totalBytes, badBlocks: badBlocks + badHere })
    })
    blobs += 1
    badBlocks += blocks.length
    if (blocks.length > 0) bad.push({ digest, blocks })
  }
  deps.log.info({ blobs, checkedBytes, badBlocks }, 'store verified')
  return { blobs, checkedBytes, badBlocks, bad }
}

/** The bad blocks of one blob. `onRun`: bytes just checked, and bad blocks so far. */
async function verifyBlob(
  blob: BlobEntry,
  { repair = true, signal }: VerifyOptions,
  onRun: (bytes: number, badBlocks: number) => void,
): Promise<number[]> {
  const blocks: number[] = []
  const held = blob.keep()
  try {
    for await (const { first, end } of blob.presentRuns()) {
      for (let block = first; block < end; block += 1) {
        signal?.throwIfAborted()
        if (!(await blob.verify(block, { drop: repair }))) blocks.push(block)
      }
      onRun(Math.min(end * BLOCK_BYTES, blob.size) - first * BLOCK_BYTES, blocks.length)
    }
    return blocks
  } finally {
    held[Symbol.dispose]()
  }
}
