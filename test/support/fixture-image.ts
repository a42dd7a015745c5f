import { createHash } from 'node:crypto'
import fs from 'node:fs/promises'
import path from 'node:path'
import { projectRoot } from './tools.ts'

export interface FixtureDescriptor {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
}

/** A small image of two layers that GNU tar and gzip made, as an OCI layout in test/fixtures/. */
export interface FixtureImage {
  readonly layout: string
  readonly tag: string
  readonly manifest: FixtureDescriptor
  readonly config: FixtureDescriptor
  readonly layers: readonly FixtureDescriptor[]
  /** Of the manifest, the config and the layers; sorted. */
  readonly digests: readonly string[]
}

export async function fixtureImage(): Promise<FixtureImage> {
  const layout = path.join(projectRoot, 'test', 'fixtures', 'images', 'oci')
  const index = (await readJson(path.join(layout, 'index.json'))) as { manifests: FixtureDescriptor[] }
  const manifest = index.manifests[0]!
  const content = (await readJson(blobFile(layout, manifest.digest))) as {
    config: FixtureDescriptor
    layers: FixtureDescriptor[]
  }
  const all = [manifest, content.config, ...content.layers]
  return { layout, tag: 'oci', manifest, ...content, digests: all.map(({ digest }) => digest).toSorted() }
}

/** The sha256 digests of the contents of all blobs in a layout, whatever their names say; sorted. */
export async function digestsInLayout(layout: string): Promise<string[]> {
  const folder = path.join(layout, 'blobs', 'sha256')
  const digests: string[] = []
  for (const name of await fs.readdir(folder)) digests.push(sha256Of(await fs.readFile(path.join(folder, name))))
  return digests.toSorted()
}

export function sha256Of(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

function blobFile(layout: string, digest: string): string {
  return path.join(layout, 'blobs', ...digest.split(':'))
}

async function readJson(file: string): Promise<unknown> {
  return JSON.parse(await fs.readFile(file, 'utf8')) as unknown
}
