import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import { execFile } from 'node:child_process'
import { readdirSync, readlinkSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { BLOCK_BYTES, CHUNK_BYTES, silentLogger } from '../../src/core/index.ts'
import { DiskFiles } from '../../src/store/data-files.ts'
import { layoutOf, type FileRef } from '../../src/store/layout.ts'
import { openNative } from '../../src/store/native.ts'
import { contentOf, digestOf, until } from './harness.ts'

interface Desk extends AsyncDisposable {
  readonly files: DiskFiles
  readonly root: string
  /** Descriptors of data files that this process has open. */
  open(): number
}

async function desk(maxOpenFiles?: number): Promise<Desk> {
  const root = await fs.realpath(await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-files-')))
  const layout = layoutOf(root)
  await fs.mkdir(layout.trash)
  const options = maxOpenFiles === undefined ? { layout } : { layout, maxOpenFiles }
  const files = new DiskFiles({ native: openNative(), log: silentLogger }, options)
  return {
    files,
    root,
    open: () => readdirSync('/proc/self/fd').filter(fd => targetOf(fd).startsWith(root)).length,
    [Symbol.asyncDispose]: async () => {
      await files.close()
      await fs.rm(root, { recursive: true })
    },
  }
}

function targetOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return ''
  }
}

function ref(id: number): FileRef {
  return { id, digest: digestOf(contentOf(8, id)) }
}

test('no more descriptors stay open than allowed, and none after close()', async () => {
  await using at = await desk(3)
  for (let id = 1; id <= 10; id += 1) await at.files.write(ref(id), [contentOf(100, id)], 0)
  await until(() => at.open() === 3, 'the others close')
  const target = Buffer.alloc(100)
  assert.equal(await at.files.read(ref(1), target, 0), 100)
  assert.ok(target.equals(contentOf(100, 1)))
  await at.files.close()
  assert.equal(at.open(), 0)
})

test('a descriptor in use is not closed, however many others are opened meanwhile', async () => {
  await using at = await desk(1)
  await at.files.write(ref(1), [contentOf(100, 1)], 0)
  await at.files.withDescriptor(ref(1), async fd => {
    for (let id = 2; id <= 5; id += 1) await at.files.write(ref(id), [contentOf(100, id)], 0)
    assert.equal(targetOf(String(fd)), path.join(at.root, 'blobs', ...partsOf(ref(1))))
  })
  await until(() => at.open() === 1, 'it closes after its use')
})

function partsOf({ digest }: FileRef): string[] {
  const [algorithm = '', hex = ''] = digest.split(':')
  return [algorithm, hex.slice(0, 2), hex]
}

test('a read of a file that is not there is ENOENT and makes none', async () => {
  await using at = await desk()
  await assert.rejects(at.files.read(ref(1), Buffer.alloc(1), 0), { code: 'ENOENT' })
  assert.equal(await at.files.stat(ref(1)), undefined)
  assert.equal(at.files.readNow(ref(1), Buffer.alloc(1), 0), false)
})

test('a read beyond the end is short', async () => {
  await using at = await desk()
  await at.files.write(ref(1), [contentOf(100)], 0)
  assert.equal(await at.files.read(ref(1), Buffer.alloc(50), 80), 20)
  assert.equal(await at.files.read(ref(1), Buffer.alloc(50), 200), 0)
  assert.equal(at.files.readNow(ref(1), Buffer.alloc(50), 80), false)
  assert.equal(at.files.readNow(ref(1), Buffer.alloc(20), 80), true)
})

test('a punched span reads as zeros, its neighbours as before, and the disk has its bytes back', async () => {
  await using at = await desk()
  const bytes = contentOf(3 * CHUNK_BYTES)
  await at.files.write(ref(1), [bytes], 0)
  const before = await at.files.stat(ref(1))
  await at.files.punch(ref(1), [{ start: CHUNK_BYTES, length: CHUNK_BYTES }])
  const after = await at.files.stat(ref(1))
  assert.equal(after?.size, before?.size)
  assert.ok((before?.allocated ?? 0) - (after?.allocated ?? 0) >= CHUNK_BYTES * 0.9)
  const target = Buffer.alloc(bytes.byteLength)
  await at.files.read(ref(1), target, 0)
  bytes.fill(0, CHUNK_BYTES, 2 * CHUNK_BYTES)
  assert.ok(target.equals(bytes))
  await assert.rejects(at.files.punch(ref(1), [{ start: 0, length: 0 }]), { code: 'EINVAL' })
})

test('a retired file is readable by its id, its name is free, and erasing leaves nothing', async () => {
  await using at = await desk(1)
  const old = ref(1)
  const anew = { id: 2, digest: old.digest }
  await at.files.write(old, [contentOf(100, 1)], 0)
  const retiring = at.files.retire(old)
  const writing = at.files.write(anew, [contentOf(50, 2)], 0)
  await Promise.all([retiring, writing])
  const target = Buffer.alloc(100)
  assert.equal(await at.files.read(old, target, 0), 100)
  assert.ok(target.equals(contentOf(100, 1)))
  await at.files.erase(old)
  assert.equal((await at.files.stat(anew))?.size, 50)
  await at.files.retire(anew)
  await at.files.erase(anew)
  assert.deepEqual(await fs.readdir(path.join(at.root, 'trash')), [])
  await until(() => at.open() === 0, 'their descriptors close')
})

test('a file that was never made can be retired and erased', async () => {
  await using at = await desk()
  await at.files.retire(ref(1))
  await at.files.erase(ref(1))
})

test('a first write that retirement overtakes does not leave a file under the name', async () => {
  await using at = await desk()
  for (let id = 1; id <= 20; id += 1) {
    const writing = at.files.write(ref(id), [contentOf(10)], 0)
    if (id % 2 === 0) await Promise.resolve()
    await Promise.all([writing, at.files.retire(ref(id))])
    await at.files.erase(ref(id))
  }
  const left: string[] = []
  for await (const digest of at.files.names()) left.push(digest)
  assert.deepEqual(left, [])
  assert.deepEqual(await fs.readdir(path.join(at.root, 'trash')), [])
})

test('names() gives what has the form of a digest and nothing else', async () => {
  await using at = await desk()
  await at.files.write(ref(1), [contentOf(10)], 0)
  const wide = { id: 2, digest: digestOf(contentOf(9), 'sha512') }
  await at.files.write(wide, [contentOf(10)], 0)
  await fs.writeFile(path.join(at.root, 'blobs', 'sha256', 'stray'), '')
  await fs.mkdir(path.join(at.root, 'blobs', 'sha256', 'zz'))
  await fs.writeFile(path.join(at.root, 'blobs', 'sha256', 'zz', 'stray'), '')
  const names: string[] = []
  for await (const digest of at.files.names()) names.push(digest)
  assert.deepEqual(names, [ref(1).digest, wide.digest])
  assert.equal(await at.files.deleteOrphan(ref(3).digest), undefined)
  assert.ok(((await at.files.deleteOrphan(ref(1).digest)) ?? 0) > 0)
})

test('the probe leaves no file, and fails where nothing can be written', async () => {
  await using at = await desk()
  await at.files.probe()
  assert.deepEqual((await fs.readdir(at.root)).toSorted(), ['trash'])
  await fs.mkdir(path.join(at.root, 'probe', 'inside'), { recursive: true })
  await assert.rejects(at.files.probe(), { code: 'EISDIR' })
  await fs.rm(path.join(at.root, 'probe'), { recursive: true })
  assert.ok(((await at.files.freeBytes()) ?? 0) > BLOCK_BYTES)
})

test('free bytes of a directory that is gone are not known', async () => {
  const files = new DiskFiles({ native: openNative(), log: silentLogger }, { layout: layoutOf('/nonexistent/shoal') })
  assert.equal(await files.freeBytes(), undefined)
})

const run = promisify(execFile)

/** Makes a directory in the trash that this process cannot delete. Returns what ends that; undefined: this machine does not let us. */
async function undeletable(directory: string): Promise<(() => Promise<unknown>) | undefined> {
  await fs.mkdir(directory)
  if (process.getuid?.() !== 0) {
    await fs.writeFile(path.join(directory, 'x'), '')
    await fs.chmod(directory, 0o500)
    return () => fs.chmod(directory, 0o700)
  }
  try {
    await run('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'shoal-test', directory])
    return () => run('umount', [directory])
  } catch {
    return undefined
  }
}

test('what cannot be deleted from the trash does not keep the rest there', async t => {
  await using at = await desk()
  const trash = layoutOf(at.root).trash
  const end = await undeletable(path.join(trash, '2'))
  if (end === undefined) {
    t.skip('this machine does not let us mount a tmpfs')
    return
  }
  try {
    for (const name of ['1', '3']) await fs.writeFile(path.join(trash, name), 'left over')
    await at.files.emptyTrash()
    assert.deepEqual(await fs.readdir(trash), ['2'])
  } finally {
    await end()
  }
})
