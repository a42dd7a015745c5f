import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { Registry } from 'prom-client'
import { digestHex, errorCode, type Digest, type ErrorCode, type BlobSource } from '../../../src/core/index.ts'
import { deviceNumber, diskSize } from '../../../src/upstream/local/disk-size.ts'
import { LocaldiskOrigin } from '../../../src/upstream/local/localdisk.ts'
import { blobSourceConformance } from '../../conformance/blob-source.ts'
import { bytesOf, digestOf, generatedBlob } from '../../support/generated-blob.ts'
import { BASIC_DATA, makeDisk, nydusPartition, writeDisk, type PartitionRecipe } from '../../support/gpt-maker.ts'
import { findToolOrThrow, skipWithout } from '../../support/tools.ts'
import { collect, keyOf, metric, spelled, TestClock, testDeps } from '../rig.ts'

const run = promisify(execFile)
const BLOB = bytesOf(generatedBlob(300_000, 5))
const DIGEST = digestOf(BLOB)
const SECTOR = 512

let root = ''
let made = 0

before(async () => {
  root = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-localdisk-'))
})

after(() => fs.rm(root, { recursive: true, force: true }))

function newFile(): string {
  made += 1
  return path.join(root, `${made}.img`)
}

async function newDisk(partitions: readonly PartitionRecipe[], sectorBytes: 512 | 4096 = 512): Promise<string> {
  const file = newFile()
  await writeDisk(file, { partitions, sectorBytes })
  return file
}

function openDisk(devicePath: string, disableGpt = false, clock = new TestClock()): Promise<LocaldiskOrigin> {
  return LocaldiskOrigin.open(testDeps(clock), { name: 'demo', devicePath, disableGpt })
}

async function readAll(origin: BlobSource, digest: Digest): Promise<Buffer | undefined> {
  const info = await origin.stat(keyOf(digest))
  return info === undefined ? undefined : collect(await origin.open(keyOf(digest), { start: 0, end: info.size }))
}

function failsWith(code: ErrorCode, text = '') {
  return (error: unknown): boolean => errorCode(error) === code && spelled(error).includes(text)
}

function partitionsFor(blobs: ReadonlyMap<Digest, Uint8Array>): PartitionRecipe[] {
  return [...blobs].map(([digest, bytes]) => nydusPartition(digest, bytes))
}

for (const sectorBytes of [512, 4096] as const) {
  blobSourceConformance(`a disk of ${sectorBytes}-byte sectors`, async blobs => {
    const origin = await openDisk(await newDisk(partitionsFor(blobs), sectorBytes))
    return { source: origin, key: keyOf, close: () => origin.close() }
  })
}

/** Writes the blobs into the partitions of an image that a partitioning tool has made. Sectors count from `first`. */
async function fillImage(
  blobs: ReadonlyMap<Digest, Uint8Array>,
  partition: (file: string, places: readonly (PartitionRecipe & { start: number; sectors: number })[]) => Promise<void>,
): Promise<string> {
  const file = newFile()
  let start = 2048
  const places = partitionsFor(blobs).map(recipe => {
    const sectors = Math.max(1, Math.ceil(recipe.content.length / SECTOR))
    const place = { ...recipe, start, sectors }
    start += Math.ceil(sectors / 2048) * 2048
    return place
  })
  await fs.writeFile(file, '')
  await fs.truncate(file, (start + 2048) * SECTOR)
  await partition(file, places)
  const handle = await fs.open(file, 'r+')
  for (const place of places) await handle.write(place.content, 0, place.content.length, place.start * SECTOR)
  await handle.close()
  return file
}

function dashed(guid: string): string {
  return guid.replace(/^(.{8})-?(.{4})-?(.{4})-?(.{4})-?(.{12})$/, '$1-$2-$3-$4-$5')
}

async function sgdisk(
  file: string,
  places: readonly (PartitionRecipe & { start: number; sectors: number })[],
): Promise<void> {
  const options = places.flatMap(({ guid, name, sectors, start, type }, index) => [
    `--new=${index + 1}:${start}:${start + sectors - 1}`,
    `--change-name=${index + 1}:${name}`,
    ...(guid === undefined ? [] : [`--partition-guid=${index + 1}:${dashed(guid)}`]),
    `--typecode=${index + 1}:${type ?? '8300'}`,
  ])
  await run(await findToolOrThrow('sgdisk'), ['--set-alignment=1', ...options, file])
}

async function sfdisk(
  file: string,
  places: readonly (PartitionRecipe & { start: number; sectors: number })[],
): Promise<void> {
  const lines = places.map(({ guid, name, sectors, start, type }) =>
    [
      `start=${start}`,
      `size=${sectors}`,
      `name="${name}"`,
      ...(guid === undefined ? [] : [`uuid=${dashed(guid)}`]),
      ...(type === undefined ? [] : [`type=${type}`]),
    ].join(', '),
  )
  const child = run(await findToolOrThrow('sfdisk'), ['--quiet', '--no-reread', '--no-tell-kernel', file])
  child.child.stdin?.end(`label: gpt\n${lines.join('\n')}\n`)
  await child
}

for (const [name, tool] of Object.entries({ sgdisk, sfdisk })) {
  test(`a disk made by ${name} is read`, { skip: await skipWithout([name]) }, async () => {
    const contents = [BLOB, Buffer.from('x'), Buffer.alloc(0)]
    const blobs = new Map([
      ...contents.map(bytes => [digestOf(bytes), bytes] as const),
      [digestOf(BLOB, 'sha512'), BLOB] as const,
    ])
    const origin = await openDisk(await fillImage(blobs, tool))
    for (const [digest, bytes] of blobs) assert.deepEqual(await readAll(origin, digest), bytes, digest)
  })
}

test(
  'a block device is read like an image of it, with GPT and without',
  { skip: await skipWithout(['losetup'], { root: true }) },
  async context => {
    const file = await newDisk([nydusPartition(DIGEST, BLOB)])
    const { size } = await fs.stat(file)
    const losetup = await findToolOrThrow('losetup')
    const loop = await run(losetup, ['--find', '--show', '--read-only', file]).catch(() => undefined)
    if (loop === undefined) {
      context.skip('no loop device can be made here')
      return
    }
    const device = loop.stdout.trim()
    try {
      assert.deepEqual(await readAll(await openDisk(device), DIGEST), BLOB)
      assert.deepEqual(await (await openDisk(device, true)).stat(keyOf(DIGEST)), { size })
    } finally {
      await run(losetup, ['--detach', device])
    }
  },
)

test('a block device without a size is a failure', async () => {
  const sysfs = path.join(root, 'sys')
  const rdev = (8n << 8n) | 1n
  const handle = {
    stat: () => Promise.resolve({ isBlockDevice: () => true, rdev }),
  } as unknown as fs.FileHandle
  const file = path.join(sysfs, 'dev', 'block', '8:1', 'size')
  await assert.rejects(diskSize(handle, sysfs), { code: 'ENOENT', path: file })
  await fs.mkdir(path.dirname(file), { recursive: true })
  for (const text of ['0\n', 'many\n', '']) {
    await fs.writeFile(file, text)
    await assert.rejects(diskSize(handle, sysfs), failsWith('ERR_UPSTREAM_TRANSPORT', 'does not tell a size'), text)
  }
  await fs.writeFile(file, '3\n')
  assert.equal(await diskSize(handle, sysfs), 1536)
})

test('device numbers are unpacked as they are packed', () => {
  // As gnu_dev_makedev() of glibc packs them.
  const packed = (major: bigint, minor: bigint): bigint =>
    ((major & 0xfffn) << 8n) | ((major & 0xfffff000n) << 32n) | (minor & 0xffn) | ((minor & 0xffffff00n) << 12n)
  for (const [major, minor] of [
    [8n, 1n],
    [259n, 300n],
    [0xfffffn, 0xfffffn],
  ] as const) {
    assert.equal(deviceNumber(packed(major, minor)), `${major}:${minor}`)
  }
})

test('both of nydus ways to name a partition are understood, and other partitions are let be', async () => {
  const [one, two] = [Buffer.from('one'), Buffer.from('two')]
  const old = { name: digestHex(digestOf(two)).slice(0, 32), type: BASIC_DATA, content: two }
  const file = await newDisk([
    { name: 'EFI system partition', content: Buffer.alloc(10_000, 7) },
    { name: '', content: Buffer.alloc(1) },
    { name: '', content: Buffer.alloc(1) },
    nydusPartition(digestOf(one), one),
    old,
  ])
  const origin = await openDisk(file)
  assert.deepEqual(await readAll(origin, digestOf(one)), one)
  assert.deepEqual(await readAll(origin, digestOf(two)), two)
  // Half of an id is enough only where it is all there is.
  const half = `sha256:${digestHex(digestOf(one)).slice(0, 32)}${'0'.repeat(32)}`
  assert.equal(await origin.stat(keyOf(half)), undefined)
})

test('what a blob is padded with is no part of it', async () => {
  const blobs = [
    { content: Buffer.alloc(1024, 1), padding: 0 },
    { content: Buffer.concat([Buffer.alloc(500, 1), Buffer.alloc(12)]), padding: 0 },
    { content: Buffer.concat([Buffer.alloc(500, 2), Buffer.alloc(12)]), padding: 70_000 },
    { content: Buffer.alloc(0), padding: 100_000 },
  ]
  const file = await newDisk(blobs.map(blob => ({ ...nydusPartition(digestOf(blob.content), blob.content), ...blob })))
  const origin = await openDisk(file)
  for (const { content } of blobs) assert.deepEqual(await readAll(origin, digestOf(content)), content)
})

test('how long a blob is is found out once, for all who ask and for as long as its partition stays', async () => {
  const file = await newDisk([nydusPartition(DIGEST, BLOB)])
  const origin = await openDisk(file)
  const controller = new AbortController()
  const reason = new Error('left early')
  const leaving = origin.stat(keyOf(DIGEST), { signal: controller.signal })
  const staying = origin.stat(keyOf(DIGEST))
  controller.abort(reason)
  await assert.rejects(leaving, thrown => thrown === reason)
  assert.deepEqual(await staying, { size: BLOB.length })
  // Whatever happens to the content now, the length is known.
  const handle = await fs.open(file, 'r+')
  await handle.write(Buffer.alloc(100, 1), 0, 100, 34 * SECTOR)
  await handle.close()
  assert.deepEqual(await origin.stat(keyOf(DIGEST)), { size: BLOB.length })
})

test('a partition that does not hold its blob is a failure, and is read again after a minute', async () => {
  const clock = new TestClock()
  const wrong = Buffer.from(BLOB)
  wrong[1000]! ^= 1
  const file = await newDisk([nydusPartition(DIGEST, wrong)])
  const origin = await openDisk(file, false, clock)
  const mismatch = failsWith('ERR_DIGEST_MISMATCH', `partition 1 of ${file} does not hold ${DIGEST}`)
  await assert.rejects(origin.stat(keyOf(DIGEST)), mismatch)
  await writeDisk(file, { partitions: [nydusPartition(DIGEST, BLOB)] })
  clock.time += 59_999
  await assert.rejects(origin.open(keyOf(DIGEST), { start: 0, end: 1 }), mismatch)
  clock.time += 1
  assert.deepEqual(await readAll(origin, DIGEST), BLOB)
})

test('a table that changes is read again', async () => {
  const other = Buffer.from('another blob')
  const file = await newDisk([nydusPartition(DIGEST, BLOB)])
  const origin = await openDisk(file)
  assert.equal(await origin.stat(keyOf(digestOf(other))), undefined)
  await writeDisk(file, { partitions: [nydusPartition(digestOf(other), other)] })
  assert.deepEqual(await readAll(origin, digestOf(other)), other)
  assert.equal(await origin.stat(keyOf(DIGEST)), undefined)
})

test('a disk that is cut, gone or no longer readable is a failure, at every step', async () => {
  const whole = { start: 0, end: BLOB.length }
  const file = await newDisk([nydusPartition(DIGEST, BLOB)])
  const origin = await openDisk(file)
  assert.deepEqual(await origin.stat(keyOf(DIGEST)), { size: BLOB.length })
  const body = await origin.open(keyOf(DIGEST), whole)
  const late = await origin.open(keyOf(DIGEST), whole)
  await fs.truncate(file, 100_000)
  await assert.rejects(collect(body), failsWith('ERR_UPSTREAM_BODY', 'early'))
  await assert.rejects(origin.stat(keyOf(DIGEST)), failsWith('ERR_UPSTREAM_BODY', 'beyond the end of the disk'))
  await fs.writeFile(file, makeDisk({ partitions: [] }).fill(0, 0, 512))
  await assert.rejects(origin.stat(keyOf(DIGEST)), failsWith('ERR_UPSTREAM_BODY', 'no GUID partition table'))
  await fs.rm(file)
  await assert.rejects(collect(late), failsWith('ERR_UPSTREAM_TRANSPORT', 'ENOENT'))
  await assert.rejects(origin.stat(keyOf(DIGEST)), failsWith('ERR_UPSTREAM_TRANSPORT', 'ENOENT'))
  await fs.symlink(file, file)
  await assert.rejects(origin.open(keyOf(DIGEST), whole), failsWith('ERR_UPSTREAM_TRANSPORT', 'ELOOP'))
})

test('two partitions for one blob are refused', async () => {
  const file = await newDisk([nydusPartition(DIGEST, BLOB), nydusPartition(DIGEST, BLOB)])
  await assert.rejects(openDisk(file), failsWith('ERR_CONFIG_INVALID', 'partitions 1 and 2 for the same blob'))
})

test('without GPT the disk is whatever blob is asked for', async () => {
  const file = newFile()
  await fs.writeFile(file, BLOB)
  const origin = await openDisk(file, true)
  for (const digest of [DIGEST, digestOf(Buffer.from('x'))]) {
    assert.deepEqual(await origin.stat(keyOf(digest)), { size: BLOB.length })
  }
  assert.deepEqual(await readAll(origin, DIGEST), BLOB)
  await fs.appendFile(file, 'more')
  assert.deepEqual(await origin.stat(keyOf(DIGEST)), { size: BLOB.length + 4 })
})

test('what cannot be used from the start is an error of the configuration', async () => {
  const file = newFile()
  await fs.writeFile(file, BLOB)
  for (const [devicePath, text] of [
    [path.join(root, 'missing'), 'origins."demo".device_path cannot be read (ENOENT)'],
    [root, 'origins."demo".device_path is not a block device or a file'],
    [file, `origins."demo".device_path: ${file} has no GUID partition table`],
  ] as const) {
    await assert.rejects(openDisk(devicePath), failsWith('ERR_CONFIG_INVALID', text), text)
  }
})

test('requests are counted under the kind of origin', async () => {
  const metrics = new Registry()
  const devicePath = await newDisk([nydusPartition(DIGEST, BLOB)])
  const origin = await LocaldiskOrigin.open({ ...testDeps(), metrics }, { name: 'demo', devicePath, disableGpt: false })
  assert.equal(origin.name, 'localdisk:demo')
  await collect(await origin.open(keyOf(DIGEST), { start: 100, end: 150 }))
  // What was read to find the length is not part of it.
  assert.equal(await metric(metrics, 'shoal_upstream_bytes_total'), 50)
  const labels = { origin_kind: 'localdisk', outcome: 'success' }
  assert.equal(await metric(metrics, 'shoal_upstream_requests_total', labels), 1)
})

test('a closed origin refuses everything', async () => {
  await using origin = await openDisk(await newDisk([nydusPartition(DIGEST, BLOB)]))
  await origin.close()
  await origin.close()
  const closed = failsWith('ERR_CLOSED')
  await assert.rejects(origin.stat(keyOf(DIGEST)), closed)
  await assert.rejects(origin.open(keyOf(DIGEST), { start: 0, end: 1 }), closed)
})
