import path from 'node:path'
import {
  digestAlgorithm,
  digestHex,
  MAX_MANIFEST_BYTES,
  parseRepositoryName,
  ShoalError,
  type BlobInfo,
  type BlobKey,
  type ByteRange,
  type Digest,
  type ListingAnswer,
  type ListingRequest,
  type Manifest,
  type ManifestInfo,
  type ManifestKey,
  type ManifestOptions,
  type Origin,
  type SourceOptions,
} from '../../core/index.ts'
import { A_DIRECTORY, configuredPath } from './configured-path.ts'
import { FileRange } from './file-range.ts'
import { fileSize } from './file-size.ts'
import { isLayout, LayoutIndexes, type LayoutDescriptor, type LayoutIndex } from './layout-index.ts'
import { errorAnswer, listReferrers, listTags, type Referrer } from './layout-listing.ts'
import { checkWithin, LocalRequests } from './local-requests.ts'
import { parseManifest, sniffManifestType, verifyManifest } from '../registry/manifests.ts'
import type { UpstreamDeps } from '../options.ts'

export interface OciLayoutOptions {
  /** The name that images use. */
  readonly name: string
  /** An OCI layout, which then is every repository; or a directory with a layout for each, by its name. */
  readonly path: string
}

/** A directory is a registry. Nothing in it is trusted to be complete: manifests are hashed, lengths are checked. */
export class OciLayoutOrigin implements Origin, AsyncDisposable {
  readonly name: string
  readonly #requests: LocalRequests
  readonly #root: string
  readonly #indexes = new LayoutIndexes()

  private constructor(deps: UpstreamDeps, options: OciLayoutOptions) {
    this.#requests = new LocalRequests(deps, { kind: 'oci-layout', name: options.name })
    this.name = this.#requests.name
    this.#root = options.path
  }

  /** Throws ERR_CONFIG_INVALID when `path` is no directory that can be read. */
  static async open(deps: UpstreamDeps, options: OciLayoutOptions): Promise<OciLayoutOrigin> {
    const root = await configuredPath(`origins."${options.name}".path`, options.path, A_DIRECTORY)
    return new OciLayoutOrigin(deps, { ...options, path: root })
  }

  async stat(key: BlobKey, options: SourceOptions = {}): Promise<BlobInfo | undefined> {
    return this.#requests.counted(options, async () => {
      const directory = await this.#directoryOf(key.repository)
      const size = directory === undefined ? undefined : await fileSize(blobFile(directory, key.digest))
      return size === undefined ? undefined : { size }
    })
  }

  async open(
    key: BlobKey,
    range: ByteRange,
    options: SourceOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    return this.#requests.counted(options, async () => {
      const directory = await this.#directoryOf(key.repository)
      if (directory === undefined) return undefined
      const file = blobFile(directory, key.digest)
      const size = await fileSize(file)
      if (size === undefined) return undefined
      checkWithin(range, { file, size })
      return new FileRange(this.#requests, { file, range, signal: options.signal })
    })
  }

  async statManifest(key: ManifestKey, options: ManifestOptions = {}): Promise<ManifestInfo | undefined> {
    const manifest = await this.getManifest(key, options)
    if (manifest === undefined) return undefined
    const { digest, mediaType, size } = manifest
    return { digest, mediaType, size }
  }

  async getManifest(key: ManifestKey, options: ManifestOptions = {}): Promise<Manifest | undefined> {
    const { reference, repository } = key
    return this.#requests.counted(options, async () => {
      const directory = await this.#directoryOf(repository)
      if (directory === undefined) return undefined
      const index = await this.#indexes.read(directory)
      if ('digest' in reference) {
        const listed = index.manifests.find(({ digest }) => digest === reference.digest)
        return readManifest(directory, reference.digest, listed, options)
      }
      const tagged = index.tags.get(reference.tag)
      return tagged === undefined ? undefined : readManifest(directory, tagged.digest, tagged, options)
    })
  }

  async list(request: ListingRequest, options: SourceOptions = {}): Promise<ListingAnswer> {
    const { listing, query, repository } = request
    const answer = await this.#requests.counted(options, async () => {
      const directory = await this.#directoryOf(repository)
      if (directory === undefined) return undefined
      const index = await this.#indexes.read(directory)
      if (listing.kind === 'tags') return listTags(repository, index.tags.keys(), query)
      return listReferrers(await findReferrers(directory, index, listing.digest, options), query)
    })
    return answer ?? errorAnswer(404, 'NAME_UNKNOWN', 'repository name not known to registry')
  }

  /** Refuses new requests with ERR_CLOSED; bodies that were opened can be read to their end. May be called again. */
  close(): Promise<void> {
    this.#requests.close()
    return Promise.resolve()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /**
   * The layout that a repository is. Undefined: none. The grammar of names has no `..`, no empty part and no absolute path, so this stays
   * below the root.
   */
  async #directoryOf(repository: string): Promise<string | undefined> {
    parseRepositoryName(repository)
    if (await isLayout(this.#root)) return this.#root
    const directory = path.join(this.#root, repository)
    return (await isLayout(directory)) ? directory : undefined
  }
}

function blobFile(directory: string, digest: Digest): string {
  return path.join(directory, 'blobs', digestAlgorithm(digest), digestHex(digest))
}

/** Undefined: not there, or a blob that is no manifest. `listed`: what index.json says of it, if anything. */
async function readManifest(
  directory: string,
  digest: Digest,
  listed: LayoutDescriptor | undefined,
  options: SourceOptions,
): Promise<Manifest | undefined> {
  const file = blobFile(directory, digest)
  const size = await fileSize(file)
  if (size === undefined) return undefined
  if (size > MAX_MANIFEST_BYTES) {
    if (listed === undefined) return undefined
    throw new ShoalError('ERR_LIMIT_EXCEEDED', `${file} is larger than a manifest may be`, { details: { file, size } })
  }
  const body = await readFile(file, size, options)
  const mediaType = listed?.mediaType ?? sniffManifestType(body)
  if (mediaType === undefined) return undefined
  verifyManifest(body, [digest], file)
  return { digest, mediaType, size, body }
}

async function readFile(file: string, size: number, { signal }: SourceOptions): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  const received = (): void => undefined
  for await (const piece of new FileRange({ received }, { file, range: { start: 0, end: size }, signal }))
    pieces.push(piece)
  return Buffer.concat(pieces, size)
}

async function findReferrers(
  directory: string,
  index: LayoutIndex,
  subject: Digest,
  options: SourceOptions,
): Promise<Referrer[]> {
  const referrers: Referrer[] = []
  for (const descriptor of index.manifests) {
    const manifest = await readManifest(directory, descriptor.digest, descriptor, options)
    const referrer = manifest === undefined ? undefined : referrerFrom(descriptor, manifest.body, subject)
    if (referrer !== undefined) referrers.push(referrer)
  }
  return referrers
}

/** Undefined: it does not refer to `subject`. Without an artifactType of its own, that of its config counts (distribution-spec 1.1). */
function referrerFrom(descriptor: LayoutDescriptor, body: Uint8Array, subject: Digest): Referrer | undefined {
  const manifest = parseManifest(body)
  const { annotations, artifactType, config, subject: named } = manifest ?? {}
  if (stringIn(named, 'digest') !== subject) return undefined
  const type = typeof artifactType === 'string' && artifactType !== '' ? artifactType : stringIn(config, 'mediaType')
  const { digest, mediaType, size } = descriptor
  return {
    mediaType,
    digest,
    size,
    ...(type === undefined ? {} : { artifactType: type }),
    ...(annotations === undefined ? {} : { annotations }),
  }
}

function stringIn(value: unknown, key: string): string | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const found = (value as Record<string, unknown>)[key]
  return typeof found === 'string' ? found : undefined
}
