import { LRUCache } from 'lru-cache'
import { BLOCK_BYTES } from '../core/index.ts'

/** Blob ids times this, plus a block's number, is a key: blobs up to 1 TiB stay apart. */
const BLOCKS_PER_BLOB = 2 ** 22

/** Pieces may hold more memory than they show, being views; above this factor they are copied instead. */
const MAX_OVERHEAD = 1.25

/** The bytes of recently written blocks, at most `maxBytes` of memory. 0 keeps nothing. */
export class BlockMemory {
  readonly #cache: LRUCache<number, readonly Uint8Array[]> | undefined

  constructor(maxBytes: number) {
    if (maxBytes >= BLOCK_BYTES)
      this.#cache = new LRUCache({ maxSize: maxBytes, sizeCalculation: pieces => Math.max(1, heldBy(pieces)) })
  }

  get bytes(): number {
    return this.#cache?.calculatedSize ?? 0
  }

  put(blob: number, block: number, pieces: readonly Uint8Array[]): void {
    if (this.#cache === undefined || block >= BLOCKS_PER_BLOB) return
    const shown = pieces.reduce((sum, piece) => sum + piece.byteLength, 0)
    const kept = heldBy(pieces) <= shown * MAX_OVERHEAD ? pieces : [Buffer.concat(pieces, shown)]
    this.#cache.set(blob * BLOCKS_PER_BLOB + block, kept)
  }

  drop(blob: number, block: number): void {
    this.#cache?.delete(blob * BLOCKS_PER_BLOB + block)
  }

  /** Copies a block's bytes from `offset` into `target`, as much as fits. False: not remembered. */
  copy(blob: number, block: number, offset: number, target: Uint8Array): boolean {
    const pieces = block < BLOCKS_PER_BLOB ? this.#cache?.get(blob * BLOCKS_PER_BLOB + block) : undefined
    if (pieces === undefined) return false
    let skip = offset
    let filled = 0
    for (const piece of pieces) {
      if (filled === target.byteLength) break
      if (skip >= piece.byteLength) {
        skip -= piece.byteLength
        continue
      }
      const part = piece.subarray(skip, skip + target.byteLength - filled)
      target.set(part, filled)
      filled += part.byteLength
      skip = 0
    }
    return filled === target.byteLength
  }
}

function heldBy(pieces: readonly Uint8Array[]): number {
  const buffers = new Set(pieces.map(piece => piece.buffer))
  let bytes = 0
  for (const buffer of buffers) bytes += buffer.byteLength
  return bytes
}
