import fs from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import { digestHex, type Digest } from '../../src/core/index.ts'

/** GUIDs as they are written. */
export const BASIC_DATA = 'EBD0A0A2-B9E5-4433-87C0-68B6B72699C7'
export const LINUX_DATA = '0FC63DAF-8483-4772-8E79-3D69D8477DE4'

export interface PartitionRecipe {
  readonly name: string
  /** Default: that of a Linux file system. */
  readonly type?: string
  readonly guid?: string
  readonly content: Uint8Array
  /** Zeros behind the content, before it is filled up to a whole sector. */
  readonly padding?: number
}

export interface DiskRecipe {
  readonly partitions: readonly PartitionRecipe[]
  readonly sectorBytes?: 512 | 4096
  readonly entryBytes?: number
  /** Spoil things; the checksums are made afterwards. */
  readonly patchEntries?: (entries: Buffer) => void
  readonly patchHeader?: (header: Buffer, which: 'first' | 'backup') => void
}

const ENTRIES = 128
const FREE_GUID = '11111111-2222-3333-4444-555555555555'

/** As nydus names the partition of a blob: half of its id is the name, and half the GUID; other ids than sha256 only in the old form. */
export function nydusPartition(digest: Digest, content: Uint8Array): PartitionRecipe {
  const hex = digestHex(digest)
  return hex.length === 64
    ? { name: hex.slice(0, 32), guid: hex.slice(32), content }
    : { name: hex.slice(0, 32), type: BASIC_DATA, content }
}

/** A disk with a protective MBR, a table at each end, and the partitions one after the other. */
export function makeDisk(recipe: DiskRecipe): Buffer {
  const { entryBytes = 128, partitions, sectorBytes = 512 } = recipe
  const tableSectors = Math.ceil((ENTRIES * entryBytes) / sectorBytes)
  const firstUsable = 2 + tableSectors
  const sectors = partitions.map(({ content, padding = 0 }) =>
    Math.max(1, Math.ceil((content.length + padding) / sectorBytes)),
  )
  const used = sectors.reduce((sum, count) => sum + count, 0)
  const total = firstUsable + used + tableSectors + 1
  const disk = Buffer.alloc(total * sectorBytes)
  writeProtectiveMbr(disk, total)

  const entries = Buffer.alloc(ENTRIES * entryBytes)
  let sector = firstUsable
  for (const [index, partition] of partitions.entries()) {
    const entry = entries.subarray(index * entryBytes, (index + 1) * entryBytes)
    guidBytes(partition.type ?? LINUX_DATA).copy(entry, 0)
    guidBytes(partition.guid ?? FREE_GUID).copy(entry, 16)
    entry.writeBigUInt64LE(BigInt(sector), 32)
    entry.writeBigUInt64LE(BigInt(sector + sectors[index]! - 1), 40)
    entry.write(partition.name, 56, 72, 'utf16le')
    disk.set(partition.content, sector * sectorBytes)
    sector += sectors[index]!
  }
  recipe.patchEntries?.(entries)

  const lastUsable = total - tableSectors - 2
  for (const [which, own, other, table] of [
    ['first', 1, total - 1, 2],
    ['backup', total - 1, 1, total - 1 - tableSectors],
  ] as const) {
    const header = Buffer.alloc(sectorBytes)
    header.write('EFI PART', 0, 'latin1')
    header.writeUInt32LE(0x10000, 8)
    header.writeUInt32LE(92, 12)
    for (const [at, value] of [
      [24, own],
      [32, other],
      [40, firstUsable],
      [48, lastUsable],
      [72, table],
    ] as const) {
      header.writeBigUInt64LE(BigInt(value), at)
    }
    guidBytes(FREE_GUID).copy(header, 56)
    header.writeUInt32LE(ENTRIES, 80)
    header.writeUInt32LE(entryBytes, 84)
    header.writeUInt32LE(crc32(entries), 88)
    recipe.patchHeader?.(header, which)
    header.writeUInt32LE(crc32(header.subarray(0, 92)), 16)
    header.copy(disk, own * sectorBytes)
    entries.copy(disk, table * sectorBytes)
  }
  return disk
}

export async function writeDisk(file: string, recipe: DiskRecipe): Promise<void> {
  await fs.writeFile(file, makeDisk(recipe))
}

function writeProtectiveMbr(disk: Buffer, sectors: number): void {
  disk[446 + 4] = 0xee
  disk.writeUInt32LE(1, 446 + 8)
  disk.writeUInt32LE(sectors - 1, 446 + 12)
  disk.writeUInt16LE(0xaa55, 510)
}

/** The first three parts are stored little-endian. Dashes may be left out. */
function guidBytes(text: string): Buffer {
  const bytes = Buffer.from(text.replaceAll('-', ''), 'hex')
  bytes.subarray(0, 4).reverse()
  bytes.subarray(4, 6).reverse()
  bytes.subarray(6, 8).reverse()
  return bytes
}
