import { createHash, randomFill } from 'node:crypto'
import fs from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'

const PIECE_BYTES = 4 * 1024 * 1024
/** Tar archives consist of these. */
const RECORD_BYTES = 512
const fillRandomly = promisify<Uint8Array, Uint8Array>(randomFill)

export const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar'
export const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json'
export const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json'

export interface Descriptor {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
}

export interface ImageOptions {
  readonly tag: string
  /** Of the file in each layer; every layer holds one file of random bytes, which no compression makes smaller. */
  readonly fileBytes: readonly number[]
  readonly onProgress: (bytes: number) => void
  readonly signal: AbortSignal
}

/** Writes an OCI layout with one image of uncompressed layers into an empty directory. */
export async function makeImage(directory: string, options: ImageOptions): Promise<void> {
  const blobs = path.join(directory, 'blobs', 'sha256')
  await fs.mkdir(blobs, { recursive: true })
  const layers: Descriptor[] = []
  for (const [index, bytes] of options.fileBytes.entries()) {
    layers.push(await writeBlob(blobs, LAYER_TYPE, tarOf(`random-${index + 1}.bin`, bytes, options)))
  }
  const config = await writeJson(blobs, CONFIG_TYPE, {
    architecture: 'amd64',
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: layers.map(layer => layer.digest) },
  })
  const manifest = await writeJson(blobs, MANIFEST_TYPE, {
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config,
    layers,
  })
  const annotations = { 'org.opencontainers.image.ref.name': options.tag }
  const index = { schemaVersion: 2, manifests: [{ ...manifest, annotations }] }
  await fs.writeFile(path.join(directory, 'index.json'), JSON.stringify(index))
  await fs.writeFile(path.join(directory, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
}

function writeJson(blobs: string, mediaType: string, value: unknown): Promise<Descriptor> {
  return writeBlob(blobs, mediaType, [Buffer.from(JSON.stringify(value))])
}

async function writeBlob(
  blobs: string,
  mediaType: string,
  pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<Descriptor> {
  const hash = createHash('sha256')
  const unnamed = path.join(blobs, 'unnamed')
  let size = 0
  const file = await fs.open(unnamed, 'w')
  try {
    for await (const piece of pieces) {
      hash.update(piece)
      size += piece.length
      await file.writeFile(piece)
    }
  } finally {
    await file.close()
  }
  const hex = hash.digest('hex')
  await fs.rename(unnamed, path.join(blobs, hex))
  return { mediaType, digest: `sha256:${hex}`, size }
}

async function* tarOf(name: string, bytes: number, options: ImageOptions): AsyncGenerator<Uint8Array> {
  yield tarHeader(name, bytes)
  const buffer = new Uint8Array(PIECE_BYTES)
  for (let left = bytes; left > 0; left -= PIECE_BYTES) {
    options.signal.throwIfAborted()
    const piece = await fillRandomly(buffer.subarray(0, Math.min(left, PIECE_BYTES)))
    yield piece
    options.onProgress(piece.length)
  }
  // Padding to a whole record, then the two empty ones that end an archive.
  yield new Uint8Array(Math.ceil(bytes / RECORD_BYTES) * RECORD_BYTES - bytes + 2 * RECORD_BYTES)
}

/** POSIX ustar (IEEE 1003.1, pax): a regular file, mode 644, owned by root. */
function tarHeader(name: string, bytes: number): Uint8Array {
  const header = Buffer.alloc(RECORD_BYTES)
  const octal = (value: number, digits: number): string => `${value.toString(8).padStart(digits, '0')}\0`
  header.write(name, 0)
  header.write(octal(0o644, 7), 100)
  header.write(octal(0, 7), 108)
  header.write(octal(0, 7), 116)
  header.write(octal(bytes, 11), 124)
  header.write(octal(0, 11), 136)
  header.write('0', 156)
  header.write('ustar\x0000', 257)
  // The checksum is taken with its own field full of spaces.
  header.fill(' ', 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${octal(sum, 6)} `, 148)
  return header
}
