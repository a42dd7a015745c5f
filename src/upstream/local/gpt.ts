import { crc32 } from 'node:zlib'
import { ShoalError, type ByteRange } from '../../core/index.ts'

/**
 * A GUID partition table (UEFI 2.10, chapter 5), little-endian. Header, in the disk's second sector and again in its last:
 *
 * | at | bytes | |
 * |---|---|---|
 * | 0 | 8 | `EFI PART` |
 * | 12 | 4 | bytes of the header, from 92 to one sector |
 * | 16 | 4 | crc32 of these, with this field as zero |
 * | 24 | 8 | sector of this header |
 * | 40, 48 | 8, 8 | first and last sector that partitions may use |
 * | 72 | 8 | sector where the entries begin |
 * | 80, 84, 88 | 4, 4, 4 | number of entries, bytes of each, crc32 of them all |
 *
 * Entry: type GUID (all zero: unused), partition GUID, first and last sector (8 each), attributes (8), name (36 UTF-16 units).
 */
export interface Partition {
  /** Counted from 1, as partition tools do. */
  readonly number: number
  /** Lower-case hex without dashes, in the order in which GUIDs are written. */
  readonly type: string
  readonly guid: string
  readonly name: string
  /** Bytes of the disk. */
  readonly range: ByteRange
}

/** Where tables are read from. */
export interface DiskReader {
  /** How errors name it. */
  readonly file: string
  /** Bytes. */
  readonly size: number
  /** Exactly these bytes, which lie within the size. */
  read(position: number, length: number): Promise<Buffer>
}

interface Header {
  readonly sectorBytes: number
  readonly firstUsable: bigint
  readonly lastUsable: bigint
  readonly entryBytes: number
  readonly entries: Buffer
}

/** 512 is what almost all disks say, native or not; some newer ones say 4096. */
const SECTOR_BYTES = [512, 4096] as const
const SIGNATURE = 'EFI PART'
const MIN_HEADER_BYTES = 92
const MIN_ENTRY_BYTES = 128
/** Eight times the partitions that any tool makes room for; the size is the table's own claim. */
const MAX_TABLE_BYTES = 1024 * 128
/** Offsets in the master boot record: four entries of 16 bytes with the type at 4, then the signature. */
const MBR = { bytes: 512, entries: 446, entryBytes: 16, type: 4, signature: 510 }
const PROTECTIVE = 0xee
const UNUSED = '0'.repeat(32)

/**
 * The partitions in use, in the order of their place on the disk: none overlaps another or leads beyond the end. Where the first table is
 * broken, the one at the end of the disk counts. Throws ERR_UPSTREAM_BODY that says what is wrong, or what `disk.read` throws.
 */
export async function readPartitions(disk: DiskReader): Promise<Partition[]> {
  await checkProtectiveMbr(disk)
  return partitionsOf(disk, await readHeader(disk))
}

async function checkProtectiveMbr(disk: DiskReader): Promise<void> {
  if (disk.size < MBR.bytes) throw malformed(disk, 'is too small for a partition table')
  const mbr = await disk.read(0, MBR.bytes)
  const types = [0, 1, 2, 3].map(index => mbr[MBR.entries + index * MBR.entryBytes + MBR.type])
  if (mbr.readUInt16LE(MBR.signature) === 0xaa55 && types.includes(PROTECTIVE)) return
  throw malformed(disk, 'has no GUID partition table: its first sector is not a protective MBR')
}

async function readHeader(disk: DiskReader): Promise<Header> {
  const reasons: string[] = []
  for (const place of ['first', 'last'] as const) {
    for (const sectorBytes of SECTOR_BYTES) {
      const found = await tryHeader(disk, sectorBytes, place)
      if (typeof found !== 'string') return found
      if (found !== '') reasons.push(`${place === 'first' ? 'the table' : 'the backup'} ${found}`)
    }
  }
  throw malformed(
    disk,
    reasons.length === 0
      ? 'has no GUID partition table: no header'
      : `has no usable GUID partition table: ${reasons.join('; ')}`,
  )
}

/** A string says what is wrong with the header there; an empty one that there is none. */
async function tryHeader(disk: DiskReader, sectorBytes: number, place: 'first' | 'last'): Promise<Header | string> {
  const sectors = Math.floor(disk.size / sectorBytes)
  const sector = place === 'first' ? 1 : sectors - 1
  if (sectors < 2) return ''
  const block = await disk.read(sector * sectorBytes, sectorBytes)
  if (block.toString('latin1', 0, SIGNATURE.length) !== SIGNATURE) return ''
  const headerBytes = block.readUInt32LE(12)
  if (headerBytes < MIN_HEADER_BYTES || headerBytes > sectorBytes) return `has a header of ${headerBytes} bytes`
  if (headerCrc(block.subarray(0, headerBytes)) !== block.readUInt32LE(16)) return 'has a header with a wrong checksum'
  if (block.readBigUInt64LE(24) !== BigInt(sector)) return 'has a header that belongs elsewhere'
  const entries = await readEntries(disk, sectorBytes, block)
  if (typeof entries === 'string') return entries
  return {
    sectorBytes,
    firstUsable: block.readBigUInt64LE(40),
    lastUsable: block.readBigUInt64LE(48),
    entryBytes: block.readUInt32LE(84),
    entries,
  }
}

function headerCrc(header: Buffer): number {
  const copy = Buffer.from(header)
  copy.writeUInt32LE(0, 16)
  return crc32(copy)
}

async function readEntries(disk: DiskReader, sectorBytes: number, header: Buffer): Promise<Buffer | string> {
  const [count, entryBytes] = [header.readUInt32LE(80), header.readUInt32LE(84)]
  if (entryBytes < MIN_ENTRY_BYTES) return `has entries of ${entryBytes} bytes`
  const bytes = count * entryBytes
  if (bytes > MAX_TABLE_BYTES) return `claims ${count} entries of ${entryBytes} bytes, more than anybody has`
  const start = header.readBigUInt64LE(72) * BigInt(sectorBytes)
  if (start + BigInt(bytes) > BigInt(disk.size)) return 'has entries beyond the end of the disk'
  const entries = await disk.read(Number(start), bytes)
  return crc32(entries) === header.readUInt32LE(88) ? entries : 'has entries with a wrong checksum'
}

function partitionsOf(disk: DiskReader, header: Header): Partition[] {
  const partitions: Partition[] = []
  for (let at = 0; at < header.entries.length; at += header.entryBytes) {
    const entry = header.entries.subarray(at, at + header.entryBytes)
    const partition = parseEntry(disk, header, entry, at / header.entryBytes + 1)
    if (partition !== undefined) partitions.push(partition)
  }
  partitions.sort((a, b) => a.range.start - b.range.start)
  for (const [index, partition] of partitions.entries()) {
    const before = partitions[index - 1]
    if (before !== undefined && partition.range.start < before.range.end) {
      throw malformed(disk, `has partitions ${before.number} and ${partition.number} on the same sectors`)
    }
  }
  return partitions
}

function parseEntry(disk: DiskReader, header: Header, entry: Buffer, number: number): Partition | undefined {
  const type = parseGuid(entry, 0)
  if (type === UNUSED) return undefined
  const [first, last] = [entry.readBigUInt64LE(32), entry.readBigUInt64LE(40)]
  const end = (last + 1n) * BigInt(header.sectorBytes)
  if (first > last) throw malformed(disk, `has a partition ${number} that ends before it begins`)
  if (end > BigInt(disk.size)) throw malformed(disk, `has a partition ${number} beyond the end of the disk`)
  if (first < header.firstUsable || last > header.lastUsable) {
    throw malformed(disk, `has a partition ${number} where none may be`)
  }
  return {
    number,
    type,
    guid: parseGuid(entry, 16),
    name: entry.toString('utf16le', 56, MIN_ENTRY_BYTES).split('\0', 1)[0] ?? '',
    range: { start: Number(first) * header.sectorBytes, end: Number(end) },
  }
}

/** The first three of a GUID's five parts are stored little-endian. */
function parseGuid(bytes: Buffer, at: number): string {
  const parts = [bytes.readUInt32LE(at), bytes.readUInt16LE(at + 4), bytes.readUInt16LE(at + 6)]
  const [a = '', b = '', c = ''] = parts.map((part, index) => part.toString(16).padStart(index === 0 ? 8 : 4, '0'))
  return a + b + c + bytes.toString('hex', at + 8, at + 16)
}

function malformed({ file }: DiskReader, what: string): ShoalError {
  return new ShoalError('ERR_UPSTREAM_BODY', `${file} ${what}`, { details: { file } })
}
