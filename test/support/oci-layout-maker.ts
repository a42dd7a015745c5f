import fs from 'node:fs/promises'
import path from 'node:path'
import type { Digest } from '../../src/core/index.ts'
import { bytesOf, digestOf, generatedBlob } from './generated-blob.ts'

export interface MadeDescriptor {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
}

export interface OciLayoutRecipe {
  /** Bytes of each layer. The content is noise, the same for the same seed and place. */
  readonly layers: readonly number[]
  /** Default: latest. */
  readonly tags?: readonly string[]
  readonly seed?: number
}

export interface MadeLayout {
  readonly directory: string
  readonly tags: readonly string[]
  readonly manifest: MadeDescriptor & { readonly body: Buffer }
  readonly config: MadeDescriptor
  readonly layers: readonly MadeDescriptor[]
}

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const CONFIG = 'application/vnd.oci.image.config.v1+json'
const LAYER = 'application/vnd.oci.image.layer.v1.tar'

/** Makes a small valid OCI layout in `directory`, which may exist. Called again it replaces the image and keeps the other blobs. */
export async function makeOciLayout(directory: string, recipe: OciLayoutRecipe): Promise<MadeLayout> {
  const { layers: sizes, seed = 1, tags = ['latest'] } = recipe
  await fs.mkdir(path.join(directory, 'blobs', 'sha256'), { recursive: true })
  const layers: MadeDescriptor[] = []
  for (const [place, size] of sizes.entries()) {
    layers.push(await addBlob(directory, LAYER, bytesOf(generatedBlob(size, seed * 1000 + place))))
  }
  const config = await addBlob(directory, CONFIG, json(configFor(layers)))
  const body = json({ schemaVersion: 2, mediaType: MANIFEST, config, layers })
  const manifest = await addBlob(directory, MANIFEST, body)
  await fs.writeFile(path.join(directory, 'oci-layout'), json({ imageLayoutVersion: '1.0.0' }))
  await writeIndex(
    directory,
    tags.map(tag => ({ ...manifest, annotations: { 'org.opencontainers.image.ref.name': tag } })),
  )
  return { directory, tags, config, layers, manifest: { ...manifest, body } }
}

export async function addBlob(directory: string, mediaType: string, body: Uint8Array): Promise<MadeDescriptor> {
  const digest = digestOf(body)
  await fs.writeFile(path.join(directory, 'blobs', ...digest.split(':')), body)
  return { mediaType, digest, size: body.length }
}

export async function writeIndex(directory: string, manifests: readonly object[]): Promise<void> {
  const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }
  await fs.writeFile(path.join(directory, 'index.json'), json(index))
}

function configFor(layers: readonly MadeDescriptor[]): object {
  const diffIds = layers.map(({ digest }) => digest)
  return { architecture: 'amd64', os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: diffIds } }
}

function json(value: object): Buffer {
  return Buffer.from(JSON.stringify(value))
}
