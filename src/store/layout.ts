import path from 'node:path'
import {
  digestAlgorithm,
  digestHex,
  digestHexLength,
  formatDigest,
  type Digest,
  type DigestAlgorithm,
} from '../core/index.ts'

/** One incarnation of a blob: `id` is never used again, while a digest may come back after it was removed. */
export interface FileRef {
  readonly id: number
  readonly digest: Digest
}

export const ALGORITHMS: readonly DigestAlgorithm[] = ['sha256', 'sha512']

/** Only the daemon's user may look into the state directory. */
export const DIRECTORY_MODE = 0o700
export const FILE_MODE = 0o600

/** Where things are below a state directory (docs/store-format.md). */
export interface Layout {
  readonly root: string
  /** SQLite; `-wal` and `-shm` beside it. */
  readonly index: string
  /** An empty file that asks the next start to check the index in full before it trusts it. */
  readonly suspect: string
  readonly lock: string
  readonly id: string
  readonly blobs: string
  /** Data files that have left the index and wait for their last reader. Emptied at every start. */
  readonly trash: string
  /** Written and removed to learn whether the disk takes bytes again. */
  readonly probe: string
}

export function layoutOf(root: string): Layout {
  return {
    root,
    index: path.join(root, 'index.db'),
    suspect: path.join(root, 'index.suspect'),
    lock: path.join(root, 'lock'),
    id: path.join(root, 'id'),
    blobs: path.join(root, 'blobs'),
    trash: path.join(root, 'trash'),
    probe: path.join(root, 'probe'),
  }
}

export function blobFile(layout: Layout, digest: Digest): string {
  const hex = digestHex(digest)
  return path.join(layout.blobs, digestAlgorithm(digest), hex.slice(0, 2), hex)
}

export function trashFile(layout: Layout, id: number): string {
  return path.join(layout.trash, String(id))
}

/** The digest that a data file's name stands for; undefined: none of ours. */
export function digestOfName(algorithm: DigestAlgorithm, name: string): Digest | undefined {
  if (name.length !== digestHexLength(algorithm) || !/^[0-9a-f]+$/.test(name)) return undefined
  return formatDigest(algorithm, name)
}
