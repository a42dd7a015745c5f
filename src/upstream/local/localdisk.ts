import {
  errorCode,
  describeError,
  ShoalError,
  type BlobInfo,
  type BlobKey,
  type BlobSource,
  type ByteRange,
  type Digest,
  type SourceOptions,
} from '../../core/index.ts'
import type { LocaldiskConfig, UpstreamDeps } from '../options.ts'
import { A_DISK, configuredPath } from './configured-path.ts'
import { DiskTable } from './disk-table.ts'
import { FileRange } from './file-range.ts'
import { checkWithin, LocalRequests } from './local-requests.ts'
import { PartitionLengths } from './partition-lengths.ts'

export type LocaldiskOptions = Omit<LocaldiskConfig, 'type'> & {
  /** The name that images use. */
  readonly name: string
}

/**
 * Blobs that are partitions of a disk, named as nydus's localdisk backend names them. A partition consists of whole sectors, a blob does
 * not: what is behind it is taken to be zeros, and where it ends is found by its digest when it is asked for first, which reads all of it
 * once. Without GPT, the disk as it is is whatever blob is asked for.
 */
export class LocaldiskOrigin implements BlobSource, AsyncDisposable {
  readonly name: string
  readonly #requests: LocalRequests
  readonly #file: string
  readonly #disableGpt: boolean
  readonly #table: DiskTable
  readonly #lengths: PartitionLengths

  private constructor(deps: UpstreamDeps, options: LocaldiskOptions) {
    this.#requests = new LocalRequests(deps, { kind: 'localdisk', name: options.name })
    this.name = this.#requests.name
    this.#file = options.devicePath
    this.#disableGpt = options.disableGpt
    this.#table = new DiskTable({ file: this.#file })
    this.#lengths = new PartitionLengths(deps, { file: this.#file })
  }

  /** Throws ERR_CONFIG_INVALID when `devicePath` is no disk that can be read, or, unless GPT is disabled, one without a sound table. */
  static async open(deps: UpstreamDeps, options: LocaldiskOptions): Promise<LocaldiskOrigin> {
    const key = `origins."${options.name}".device_path`
    const devicePath = await configuredPath(key, options.devicePath, A_DISK)
    const origin = new LocaldiskOrigin(deps, { ...options, devicePath })
    try {
      if (options.disableGpt) await origin.#table.size()
      else await origin.#table.read()
    } catch (error: unknown) {
      if (errorCode(error) === undefined) throw error
      throw new ShoalError('ERR_CONFIG_INVALID', `${key}: ${describeError(error)}`, { cause: error })
    }
    return origin
  }

  async stat(key: BlobKey, options: SourceOptions = {}): Promise<BlobInfo | undefined> {
    return this.#requests.counted(options, async () => {
      const place = await this.#find(key.digest, options)
      return place === undefined ? undefined : { size: place.end - place.start }
    })
  }

  async open(
    key: BlobKey,
    range: ByteRange,
    options: SourceOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    return this.#requests.counted(options, async () => {
      const place = await this.#find(key.digest, options)
      if (place === undefined) return undefined
      const file = this.#file
      checkWithin(range, { file: `${key.digest} on ${file}`, size: place.end - place.start })
      const onDisk = { start: place.start + range.start, end: place.start + range.end }
      return new FileRange(this.#requests, { file, range: onDisk, signal: options.signal })
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

  /** The bytes of the disk that are the blob. */
  async #find(digest: Digest, options: SourceOptions): Promise<ByteRange | undefined> {
    if (this.#disableGpt) return { start: 0, end: await this.#table.size() }
    const partition = await this.#table.find(digest)
    if (partition === undefined) return undefined
    const { start } = partition.range
    return { start, end: start + (await this.#lengths.lengthOf(partition, digest, options)) }
  }
}
