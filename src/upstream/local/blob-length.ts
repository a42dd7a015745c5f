import { createHash, type Hash } from 'node:crypto'
import { setImmediate as turn } from 'node:timers/promises'
import { digestAlgorithm, digestHex, type Digest } from '../../core/index.ts'

/** Blobs end in fewer zeros than this, unless they fill their place: the end of a tar archive is 10 KiB of them (GNU tar's record). */
const MAX_TRAILING_ZEROS = 64 * 1024
/** Candidates that are compared before others have their turn: well below a millisecond of work, as are this many zeros. */
const CUTS_PER_TURN = 256
const ZEROS = Buffer.alloc(256 * 1024)

/**
 * How long a blob is that was padded with zeros: `bytes` is the blob and the padding, and the length is the one at which the bytes hash to
 * `digest`. All bytes are read. Undefined: there is no such length; the bytes are others, or the padding is not zeros.
 */
export async function findBlobLength(bytes: AsyncIterable<Uint8Array>, digest: Digest): Promise<number | undefined> {
  const hash = createHash(digestAlgorithm(digest))
  // Up to its last byte that is not zero, the content is hashed; `zeros` follow that are not.
  let hashed = 0
  let zeros = 0
  for await (const piece of bytes) {
    const used = withoutTrailingZeros(piece)
    if (used > 0) {
      await hashZeros(hash, zeros)
      hash.update(piece.subarray(0, used))
      hashed += zeros + used
      zeros = 0
    }
    zeros += piece.length - used
  }
  const kept = await findCut(hash, zeros, digestHex(digest))
  return kept === undefined ? undefined : hashed + kept
}

/** How many of the zeros belong to the blob. */
async function findCut(hash: Hash, zeros: number, hex: string): Promise<number | undefined> {
  const last = Math.min(zeros, MAX_TRAILING_ZEROS)
  for (let kept = 0; kept <= last; kept += 1) {
    if (kept > 0) hash.update(ZEROS.subarray(0, 1))
    if (hash.copy().digest('hex') === hex) return kept
    if (kept % CUTS_PER_TURN === 0) await turn()
  }
  if (zeros === last) return undefined
  await hashZeros(hash, zeros - last)
  return hash.digest('hex') === hex ? zeros : undefined
}

async function hashZeros(hash: Hash, count: number): Promise<void> {
  for (let left = count; left > 0; left -= ZEROS.length) {
    hash.update(ZEROS.subarray(0, Math.min(left, ZEROS.length)))
    await turn()
  }
}

function withoutTrailingZeros(piece: Uint8Array): number {
  let end = piece.length
  while (end > 0 && piece[end - 1] === 0) end -= 1
  return end
}
