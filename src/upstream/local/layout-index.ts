import fs from 'node:fs/promises'
import path from 'node:path'
import { LRUCache } from 'lru-cache'
import { MAX_LISTING_BYTES, ShoalError, systemCode, tryParseDigest, type Digest } from '../../core/index.ts'
import { unreadable } from './file-size.ts'

const MAX_CACHED = 256
/** OCI image-spec, annotations.md. */
const REF_NAME = 'org.opencontainers.image.ref.name'

/** A descriptor of index.json, as far as it is understood. */
export interface LayoutDescriptor {
  readonly digest: Digest
  readonly size: number
  readonly mediaType: string
}

/** One reading of an index.json. */
export interface LayoutIndex {
  readonly manifests: readonly LayoutDescriptor[]
  /** By `org.opencontainers.image.ref.name`; of a repeated one the last counts, as with image tools. */
  readonly tags: ReadonlyMap<string, LayoutDescriptor>
}

interface CachedIndex {
  readonly version: string
  readonly index: LayoutIndex
}

/** Reads index.json files, again whenever they have changed. */
export class LayoutIndexes {
  readonly #cached = new LRUCache<string, CachedIndex>({ max: MAX_CACHED })

  /** `directory` is an OCI layout. Throws ERR_UPSTREAM_BODY that names a malformed file. */
  async read(directory: string): Promise<LayoutIndex> {
    const file = path.join(directory, 'index.json')
    try {
      const stats = await fs.stat(file, { bigint: true })
      const version = `${stats.ino} ${stats.size} ${stats.mtimeNs}`
      const cached = this.#cached.get(directory)
      if (cached?.version === version) return cached.index
      if (stats.size > MAX_LISTING_BYTES) throw malformed(file, `is larger than ${MAX_LISTING_BYTES} bytes`)
      const index = parseIndex(file, await fs.readFile(file, 'utf8'))
      this.#cached.set(directory, { version, index })
      return index
    } catch (error: unknown) {
      if (error instanceof ShoalError) throw error
      throw malformed(file, `cannot be read (${systemCode(error) ?? 'unknown'})`, error)
    }
  }
}

/** Whether `directory` holds the marker of an OCI layout (image-spec, image-layout.md). Throws ERR_UPSTREAM_TRANSPORT. */
export async function isLayout(directory: string): Promise<boolean> {
  try {
    return (await fs.stat(path.join(directory, 'oci-layout'))).isFile()
  } catch (error: unknown) {
    const code = systemCode(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') return false
    throw unreadable(directory, error)
  }
}

function parseIndex(file: string, text: string): LayoutIndex {
  const value = parseJson(file, text)
  const entries = isRecord(value) ? value['manifests'] : undefined
  if (!Array.isArray(entries)) throw malformed(file, 'has no "manifests"')
  const manifests: LayoutDescriptor[] = []
  const tags = new Map<string, LayoutDescriptor>()
  for (const entry of entries as unknown[]) {
    const descriptor = parseDescriptor(entry)
    if (descriptor === undefined) throw malformed(file, 'has an entry without digest, size and mediaType')
    manifests.push(descriptor)
    const tag = tagOf(entry)
    if (tag !== undefined) tags.set(tag, descriptor)
  }
  return { manifests, tags }
}

function parseDescriptor(entry: unknown): LayoutDescriptor | undefined {
  if (!isRecord(entry)) return undefined
  const { digest, mediaType, size } = entry
  const parsed = typeof digest === 'string' ? tryParseDigest(digest) : undefined
  if (parsed === undefined || typeof mediaType !== 'string' || typeof size !== 'number') return undefined
  return { digest: parsed, mediaType, size }
}

function tagOf(entry: unknown): string | undefined {
  const annotations = isRecord(entry) ? entry['annotations'] : undefined
  const tag = isRecord(annotations) ? annotations[REF_NAME] : undefined
  return typeof tag === 'string' ? tag : undefined
}

function parseJson(file: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error: unknown) {
    throw malformed(file, 'is not valid JSON', error)
  }
}

function malformed(file: string, what: string, cause?: unknown): ShoalError {
  return new ShoalError('ERR_UPSTREAM_BODY', `${file} ${what}`, { cause, details: { file } })
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
