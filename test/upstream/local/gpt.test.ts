import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { errorCode } from '../../../src/core/index.ts'
import { readPartitions, type DiskReader, type Partition } from '../../../src/upstream/local/gpt.ts'
import { LINUX_DATA, makeDisk, type DiskRecipe } from '../../support/gpt-maker.ts'

const RECIPE: DiskRecipe = {
  partitions: [
    { name: 'one', guid: '00112233-4455-6677-8899-aabbccddeeff', content: Buffer.alloc(700, 1) },
    { name: 'zwei ü', content: Buffer.alloc(100, 2) },
  ],
}
/** Where the fields of an entry and of a header are. */
const ENTRY = { first: 32, last: 40 }
const HEADER = { crc: 16, own: 24, firstUsable: 40, entriesAt: 72, count: 80, entryBytes: 84, entriesCrc: 88 }

interface WatchedDisk extends DiskReader {
  readonly longest: () => number
}

function diskOf(bytes: Buffer): WatchedDisk {
  let longest = 0
  return {
    file: 'the disk',
    size: bytes.length,
    longest: () => longest,
    read: (position, length) => {
      assert.ok(position >= 0 && position + length <= bytes.length, `${position}+${length} lies on the disk`)
      longest = Math.max(longest, length)
      return Promise.resolve(Buffer.from(bytes.subarray(position, position + length)))
    },
  }
}

function read(recipe: Partial<DiskRecipe> = {}): Promise<Partition[]> {
  return readPartitions(diskOf(makeDisk({ ...RECIPE, ...recipe })))
}

async function refuses(bytes: Buffer, text: string): Promise<void> {
  await assert.rejects(readPartitions(diskOf(bytes)), (error: unknown) => {
    assert.equal(errorCode(error), 'ERR_UPSTREAM_BODY')
    assert.ok(error instanceof Error && error.message.includes(text), String(error))
    return true
  })
}

test('partitions are read with names, GUIDs and bytes, from sectors of both sizes', async () => {
  for (const sectorBytes of [512, 4096] as const) {
    const start = (2 + (128 * 128) / sectorBytes) * sectorBytes
    const second = start + Math.ceil(700 / sectorBytes) * sectorBytes
    const type = LINUX_DATA.replaceAll('-', '').toLowerCase()
    assert.deepEqual(await read({ sectorBytes }), [
      { number: 1, type, guid: '00112233445566778899aabbccddeeff', name: 'one', range: { start, end: second } },
      {
        number: 2,
        type,
        guid: '11111111222233334444555555555555',
        name: 'zwei ü',
        range: { start: second, end: second + sectorBytes },
      },
    ])
  }
})

test('a name may take all of its 36 characters, and entries may be longer than they must', async () => {
  const name = 'n'.repeat(36)
  const partitions = [{ name, content: Buffer.alloc(1) }]
  for (const entryBytes of [128, 256]) {
    assert.deepEqual(
      (await read({ partitions, entryBytes })).map(partition => partition.name),
      [name],
    )
  }
})

test('a table without partitions is a table', async () => {
  assert.deepEqual(await read({ partitions: [] }), [])
})

test('where the first table is broken the backup counts', async () => {
  const wanted = await read()
  const spoil: Record<string, (disk: Buffer) => void> = {
    'no signature': disk => disk.fill(0, 512, 1024),
    'a bit of the header': disk => (disk[512 + HEADER.own + 7]! ^= 1),
    'a bit of the entries': disk => (disk[1024 + 60]! ^= 1),
  }
  for (const [what, change] of Object.entries(spoil)) {
    const disk = makeDisk(RECIPE)
    change(disk)
    assert.deepEqual(await readPartitions(diskOf(disk)), wanted, what)
  }
})

test('what is no GUID partition table is said to be none', async () => {
  await refuses(Buffer.alloc(0), 'the disk is too small for a partition table')
  await refuses(Buffer.alloc(511), 'is too small')
  await refuses(Buffer.alloc(100_000), 'its first sector is not a protective MBR')
  const bootable = makeDisk(RECIPE)
  bootable[446 + 4] = 0x83
  await refuses(bootable, 'is not a protective MBR')
  for (const length of [512, 1000, 8192]) {
    const bare = makeDisk(RECIPE).subarray(0, 512)
    await refuses(Buffer.concat([bare, Buffer.alloc(length - 512)]), 'has no GUID partition table: no header')
  }
})

test('a header that is broken at both ends is refused with what is wrong with each', async () => {
  const both = (patch: (header: Buffer) => void): Buffer => makeDisk({ ...RECIPE, patchHeader: patch })
  const bit = makeDisk(RECIPE)
  bit[512 + HEADER.crc]! ^= 1
  bit[bit.length - 512 + HEADER.crc]! ^= 1
  const wrong = 'has a header with a wrong checksum'
  await refuses(bit, `has no usable GUID partition table: the table ${wrong}; the backup ${wrong}`)
  await refuses(
    both(header => header.writeUInt32LE(91, 12)),
    'a header of 91 bytes',
  )
  await refuses(
    both(header => header.writeUInt32LE(0xffffffff, 12)),
    'a header of 4294967295 bytes',
  )
  await refuses(
    both(header => header.writeBigUInt64LE(7n, HEADER.own)),
    'belongs elsewhere',
  )
  await refuses(
    both(header => header.writeUInt32LE(1, HEADER.entriesCrc)),
    'entries with a wrong checksum',
  )
  await refuses(
    both(header => header.writeUInt32LE(64, HEADER.entryBytes)),
    'entries of 64 bytes',
  )
})

test('a table that claims more than any has is refused before it is read', async () => {
  for (const patch of [
    (header: Buffer) => header.writeUInt32LE(0xffffffff, HEADER.count),
    (header: Buffer) => header.writeUInt32LE(0xffffffff, HEADER.entryBytes),
    (header: Buffer) => header.fill(0xff, HEADER.count, HEADER.count + 8),
  ]) {
    const disk = diskOf(makeDisk({ ...RECIPE, patchHeader: patch }))
    await assert.rejects(readPartitions(disk), /more than anybody has/)
    assert.ok(disk.longest() <= 4096)
  }
  for (const sector of [0xffff_ffff_ffff_ffffn, 1_000_000n]) {
    const beyond = makeDisk({ ...RECIPE, patchHeader: header => header.writeBigUInt64LE(sector, HEADER.entriesAt) })
    await refuses(beyond, 'entries beyond the end of the disk')
  }
})

test('partitions that cannot be are refused, and named', async () => {
  const patched = (patch: (entry: Buffer) => void): Buffer =>
    makeDisk({ ...RECIPE, patchEntries: entries => patch(entries.subarray(128, 256)) })
  const end = 0xffff_ffff_ffff_ffffn
  await refuses(
    patched(entry => entry.writeBigUInt64LE(34n, ENTRY.first)),
    'partitions 1 and 2 on the same sectors',
  )
  await refuses(
    patched(entry => entry.writeBigUInt64LE(end, ENTRY.first)),
    'a partition 2 that ends before it begins',
  )
  await refuses(
    patched(entry => entry.writeBigUInt64LE(end, ENTRY.last)),
    'a partition 2 beyond the end of the disk',
  )
  await refuses(
    patched(entry => entry.writeBigUInt64LE(1n, ENTRY.first)),
    'a partition 2 where none may be',
  )
})

test('a disk that has become shorter is refused', async () => {
  const disk = makeDisk(RECIPE)
  await refuses(disk.subarray(0, disk.length - 40 * 512), 'beyond the end of the disk')
})

test('whatever bytes a disk has, they are partitions on it or a refusal, and little is read at once', async () => {
  const change = fc.record({ at: fc.nat({ max: 1024 + 4 * 128 }), value: fc.nat({ max: 255 }) })
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 6 }), fc.boolean(), async (changes, checked) => {
      const bytes = makeDisk({
        ...RECIPE,
        // With good checksums nonsense gets further.
        ...(checked
          ? {
              patchEntries: (entries: Buffer) => {
                for (const { at, value } of changes) entries[at % 256] = value
              },
              patchHeader: (header: Buffer) => {
                for (const { at, value } of changes) if (at % 3 === 0) header[24 + (at % 64)] = value
              },
            }
          : {}),
      })
      if (!checked) for (const { at, value } of changes) bytes[at] = value
      const disk = diskOf(bytes)
      try {
        for (const { range } of await readPartitions(disk)) {
          assert.ok(range.start >= 0 && range.start < range.end && range.end <= disk.size)
        }
      } catch (error: unknown) {
        assert.equal(errorCode(error), 'ERR_UPSTREAM_BODY', String(error))
      }
      assert.ok(disk.longest() <= 128 * 1024)
    }),
    { numRuns: 300 },
  )
})
