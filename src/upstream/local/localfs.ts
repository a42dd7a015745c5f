import path from 'node:path'
import {
  digestHex,
  ShoalError,
  type BlobInfo,
  type BlobKey,
  type BlobSource,
  type ByteRange,
  type Digest,
  type SourceOptions,
} from '../../core/index.ts'
import type { LocalfsConfig, UpstreamDeps } from '../options.ts'
import { A_DIRECTORY, A_FILE, configuredPath } from './configured-path.ts'
import { FileRange } from './file-range.ts'
import { fileSize } from './file-size.ts'
import { checkWithin, LocalRequests } from './local-requests.ts'

export type LocalfsOptions = Omit<LocalfsConfig, 'type'> & {
  /** The name that images use. */
  readonly name: string
}

/** Where to look: a file that is every blob, or directories in the order to try. */
type Places = { readonly file: string } | { readonly directories: readonly string[] }

interface FoundBlob {
  readonly file: string
  readonly size: number
}

/** Blobs that lie in directories under the hex of their digests, as nydus's localfs backend has them; lengths are checked, bytes are not. */
export class LocalfsOrigin implements BlobSource, AsyncDisposable {
  readonly name: string
  readonly #requests: LocalRequests
  readonly #places: Places

  private constructor(deps: UpstreamDeps, options: { readonly name: string; readonly places: Places }) {
    this.#requests = new LocalRequests(deps, { kind: 'localfs', name: options.name })
    this.name = this.#requests.name
    this.#places = options.places
  }

  /** Throws ERR_CONFIG_INVALID unless there is a `blobFile` (which then is every blob), or a `dir`, and all paths lead to what they should. */
  static async open(deps: UpstreamDeps, options: LocalfsOptions): Promise<LocalfsOrigin> {
    return new LocalfsOrigin(deps, { name: options.name, places: await checkPlaces(options) })
  }

  async stat(key: BlobKey, options: SourceOptions = {}): Promise<BlobInfo | undefined> {
    return this.#requests.counted(options, async () => {
      const blob = await findBlob(this.#places, key.digest)
      return blob === undefined ? undefined : { size: blob.size }
    })
  }

  async open(
    key: BlobKey,
    range: ByteRange,
    options: SourceOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    return this.#requests.counted(options, async () => {
      const blob = await findBlob(this.#places, key.digest)
      if (blob === undefined) return undefined
      checkWithin(range, blob)
      return new FileRange(this.#requests, { file: blob.file, range, signal: options.signal })
    })
  }

  /** Refuses new requests with ERR_CLOSED; bodies that were opened can be read to their end. May be called again. */
  close(): Promise<void> {
    this.#requests.close()
    return Promise.resolve()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

async function checkPlaces({ altDirs, blobFile, dir, name }: LocalfsOptions): Promise<Places> {
  const key = (last: string): string => `origins."${name}".${last}`
  if (blobFile !== undefined) return { file: await configuredPath(key('blob_file'), blobFile, A_FILE) }
  if (dir === undefined) throw new ShoalError('ERR_CONFIG_INVALID', `${key('dir')} is missing, and so is blob_file`)
  const directories = [await configuredPath(key('dir'), dir, A_DIRECTORY)]
  for (const other of altDirs) directories.push(await configuredPath(key('alt_dirs'), other, A_DIRECTORY))
  return { directories }
}

/** A digest's hex has neither slashes nor dots, so the names stay in their directories. */
async function findBlob(places: Places, digest: Digest): Promise<FoundBlob | undefined> {
  const files =
    'file' in places ? [places.file] : places.directories.map(directory => path.join(directory, digestHex(digest)))
  for (const file of files) {
    const size = await fileSize(file)
    if (size !== undefined) return { file, size }
  }
  return undefined
}
