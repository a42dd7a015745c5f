import { createHash, randomFillSync } from 'node:crypto'
import fs from 'node:fs/promises'
import path from 'node:path'

const KIB = 1024
const MIB = 1024 * KIB

export interface BenchBlob {
  readonly digest: string
  readonly size: number
  /** Named by the digest. */
  readonly file: string
}

export interface BenchBlobs {
  readonly large: BenchBlob
  readonly small: readonly BenchBlob[]
  /** As large as an image's config. */
  readonly tiny: BenchBlob
  readonly all: readonly BenchBlob[]
}

/** Where the blobs are in every server: the repository's name. */
export const REPOSITORY = 'bench/blobs'
/** What Shoal calls the registry. */
export const REGISTRY = 'bench.test'
/** Below it a blob is served to nydusd's http-proxy backend. */
export const PREFIX = '/prefix'

/** Files of random bytes: one of 256 MiB, four of 16 MiB and one of 4 KiB. */
export async function makeBlobs(directory: string): Promise<BenchBlobs> {
  const large = await makeBlob(directory, 256 * MIB)
  const small: BenchBlob[] = []
  for (let count = 0; count < 4; count += 1) small.push(await makeBlob(directory, 16 * MIB))
  const tiny = await makeBlob(directory, 4 * KIB)
  return { large, small, tiny, all: [large, ...small, tiny] }
}

/** Where the blobs are in the registry API. */
export const BLOBS_PATH = `/v2/${REPOSITORY}/blobs`

/** The path of a blob in the registry API. */
export function blobPath(blob: BenchBlob): string {
  return `${BLOBS_PATH}/${blob.digest}`
}

/** Its path for nydusd's http-proxy backend. */
export function prefixedPath(blob: BenchBlob): string {
  return `${PREFIX}/${blob.digest.replace('sha256:', '')}`
}

async function makeBlob(directory: string, size: number): Promise<BenchBlob> {
  const hash = createHash('sha256')
  const unnamed = path.join(directory, 'unnamed')
  const buffer = Buffer.allocUnsafe(Math.min(size, 4 * MIB))
  const handle = await fs.open(unnamed, 'w')
  try {
    for (let left = size; left > 0; left -= buffer.length) {
      hash.update(randomFillSync(buffer))
      await handle.writeFile(buffer)
    }
  } finally {
    await handle.close()
  }
  const digest = `sha256:${hash.digest('hex')}`
  const file = path.join(directory, digest)
  await fs.rename(unnamed, file)
  return { digest, size, file }
}
