import { createHash } from 'node:crypto'
import { parseDigest, type Digest, type DigestAlgorithm } from '../../src/core/index.ts'

/** Content that need not lie anywhere: any slice of it can be asked for. */
export interface BlobContent {
  readonly size: number
  /** Between 1 and `length` bytes from `offset`; what is returned must not be written to. */
  read(offset: number, length: number): Uint8Array
}

/** Pieces are handed out uncopied, up to this long. */
const PIECE_BYTES = 256 * 1024
const BASE_BYTES = 8 * 1024 * 1024

/**
 * Content that depends on the offset and on `seed`, without any work per byte: piece after piece, each begins somewhere else in one base of
 * noise. Equal arguments give equal content in every process, and no piece is likely to be mistaken for another.
 */
export function generatedBlob(size: number, seed = 1): BlobContent {
  return {
    size,
    read(offset, length) {
      const piece = Math.floor(offset / PIECE_BYTES)
      const within = offset - piece * PIECE_BYTES
      const start = mix(piece, seed) % (BASE_BYTES - PIECE_BYTES)
      const end = Math.min(PIECE_BYTES, within + length, size - piece * PIECE_BYTES)
      return base().subarray(start + within, start + end)
    },
  }
}

/** Bytes start ... end-1 in one buffer. */
export function bytesOf(content: BlobContent, start = 0, end = content.size): Buffer {
  const bytes = Buffer.allocUnsafe(end - start)
  for (const { offset, piece } of piecesOf(content, start, end)) bytes.set(piece, offset - start)
  return bytes
}

/** The pieces of a range, in order. */
export function* piecesOf(
  content: BlobContent,
  start = 0,
  end = content.size,
): Generator<{ offset: number; piece: Uint8Array }> {
  for (let offset = start; offset < end;) {
    const piece = content.read(offset, end - offset)
    yield { offset, piece }
    offset += piece.length
  }
}

export function contentOf(bytes: Uint8Array): BlobContent {
  return {
    size: bytes.length,
    read: (offset, length) => bytes.subarray(offset, offset + Math.min(length, PIECE_BYTES)),
  }
}

/** Reads everything once: about a second per GiB. */
export function digestOf(content: BlobContent | Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Digest {
  const hash = createHash(algorithm)
  const whole = content instanceof Uint8Array ? contentOf(content) : content
  for (const { piece } of piecesOf(whole)) hash.update(piece)
  return parseDigest(`${algorithm}:${hash.digest('hex')}`)
}

let noise: Buffer | undefined

/** Made once per process: a xorshift generator, so that it is the same everywhere. */
function base(): Buffer {
  if (noise !== undefined) return noise
  const words = new Uint32Array(BASE_BYTES / 4)
  let state = 0x9e3779b9
  for (let index = 0; index < words.length; index += 1) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[index] = state
  }
  noise = Buffer.from(words.buffer)
  return noise
}

/** A 32-bit integer hash of two numbers (the finaliser of murmur3). */
function mix(piece: number, seed: number): number {
  let hash = Math.imul(piece ^ 0x85ebca6b, 0xcc9e2d51) ^ Math.imul(seed | 0, 0x1b873593)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
