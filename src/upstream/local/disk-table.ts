import fs from 'node:fs/promises'
import { digestHex, ShoalError, type ByteRange, type Digest } from '../../core/index.ts'
import { diskSize } from './disk-size.ts'
import { unreadable } from './file-size.ts'
import { readPartitions, type DiskReader, type Partition } from './gpt.ts'

/** Basic data. nydus's older images have it; a partition's name is then the beginning of the blob's id, and all there is of it. */
const BASIC_DATA = 'ebd0a0a2b9e5443387c068b6b72699c7'
/** Of a name's 36 characters nydus uses so many; in its newer images the partition's GUID is the other half of the id. */
const NAME_LENGTH = 32
const BLOB_NAME = /^[0-9a-f]{32}$/
/** Wherever headers may be, with either size of sectors: the first table's is in the second sector, the backup's in the last. */
const HEAD_BYTES = 2 * 4096
const TAIL_BYTES = 4096

/** Where blobs are on one reading of a disk's table, by what their ids are matched with. */
interface BlobPartitions {
  /** Equal tables have equal headers, because a header has a checksum of the entries. */
  readonly version: Buffer
  readonly byId: ReadonlyMap<string, Partition>
}

/** A disk, or an image of one, whose blobs are partitions as nydus names them. Holds nothing open. */
export class DiskTable {
  readonly #file: string
  #last: BlobPartitions | undefined

  constructor(options: { readonly file: string }) {
    this.#file = options.file
  }

  /** Bytes of the disk. Throws ERR_UPSTREAM_TRANSPORT. */
  async size(): Promise<number> {
    return this.#withDisk(disk => Promise.resolve(disk.size))
  }

  /** The blob's partition; the table is read again when it has changed. Throws ERR_UPSTREAM_BODY, ERR_UPSTREAM_TRANSPORT. */
  async find(digest: Digest): Promise<Partition | undefined> {
    const hex = digestHex(digest)
    const { byId } = await this.read()
    return byId.get(hex) ?? byId.get(hex.slice(0, NAME_LENGTH))
  }

  async read(): Promise<BlobPartitions> {
    return this.#withDisk(async disk => {
      const version = await versionOf(disk)
      if (this.#last?.version.equals(version) === true) return this.#last
      const byId = blobsOf(disk.file, await readPartitions(disk))
      return (this.#last = { version, byId })
    })
  }

  async #withDisk<T>(work: (disk: DiskReader) => Promise<T>): Promise<T> {
    const file = this.#file
    let handle: fs.FileHandle | undefined
    try {
      handle = await fs.open(file)
      const reading = handle
      const read = (position: number, length: number): Promise<Buffer> => readExactly(file, reading, position, length)
      return await work({ file, size: await diskSize(handle), read })
    } catch (error: unknown) {
      throw error instanceof ShoalError ? error : unreadable(file, error)
    } finally {
      await handle?.close()
    }
  }
}

async function versionOf(disk: DiskReader): Promise<Buffer> {
  const { size } = disk
  const ranges: ByteRange[] = [
    { start: 0, end: Math.min(HEAD_BYTES, size) },
    { start: Math.max(0, size - TAIL_BYTES), end: size },
  ]
  const parts = await Promise.all(ranges.map(({ end, start }) => disk.read(start, end - start)))
  return Buffer.concat([Buffer.from(`${size} `), ...parts])
}

/** Throws ERR_UPSTREAM_BODY when two partitions claim to be the same blob. */
function blobsOf(file: string, partitions: readonly Partition[]): ReadonlyMap<string, Partition> {
  const byId = new Map<string, Partition>()
  for (const partition of partitions) {
    if (!BLOB_NAME.test(partition.name)) continue
    const id = partition.type === BASIC_DATA ? partition.name : partition.name + partition.guid
    const other = byId.get(id)
    if (other !== undefined) {
      const what = `has partitions ${other.number} and ${partition.number} for the same blob`
      throw new ShoalError('ERR_UPSTREAM_BODY', `${file} ${what}`, { details: { file } })
    }
    byId.set(id, partition)
  }
  return byId
}

/** Throws ERR_UPSTREAM_BODY when the file has become shorter. */
async function readExactly(file: string, handle: fs.FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await handle.read(buffer, filled, length - filled, position + filled)
    if (bytesRead === 0) throw new ShoalError('ERR_UPSTREAM_BODY', `${file} became shorter`, { details: { file } })
    filled += bytesRead
  }
  return buffer
}
