import assert from 'node:assert/strict'
import Database from 'better-sqlite3'
import { execFile } from 'node:child_process'
import fs from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { BLOCK_BYTES, errorCode, silentLogger, systemCode } from '../../src/core/index.ts'
import { DiskHealth, RETRY_MS } from '../../src/store/disk-health.ts'
import {
  Bench,
  blockOf,
  contentOf,
  digestOf,
  ManualClock,
  MIB,
  mustFind,
  put,
  putWhole,
  systemError,
  until,
} from './harness.ts'

for (const code of ['ENOSPC', 'EIO', 'EROFS']) {
  test(`${code} on a write turns the store off for writing, said once, and it comes back by itself`, async () => {
    await using bench = await Bench.open()
    const store = await bench.store()
    const [here, other] = [contentOf(1000, 1), contentOf(3 * BLOCK_BYTES, 2)]
    const whole = await putWhole(store, here)
    const blob = store.ensure(digestOf(other), { size: other.byteLength })
    bench.faults.write = () => systemError(code)
    bench.faults.probe = () => systemError(code)
    using lease = blob.reserve(other.byteLength)
    assert.equal(lease?.bytes, other.byteLength)
    assert.deepEqual(await put(blob, other), [false, false, false])
    assert.equal(store.writable, false)
    assert.equal(store.stats().writable, false)
    assert.equal(await bench.metric('shoal_store_writable'), 0)
    const errors = bench.lines.filter(({ level }) => level === 'error')
    assert.deepEqual(
      errors.map(({ fields }) => fields['code']),
      [code],
    )
    assert.equal(blob.reserve(1), undefined)
    assert.equal(await bench.metric('shoal_store_refused_reservations_total'), 1)
    assert.ok(here.equals((await whole.read(0, 1000))!))

    bench.clock.advance(RETRY_MS)
    await until(() => bench.clock.sleeping > 0 && bench.logged('still refuses').length === 1, 'the disk is tried')
    assert.equal(store.writable, false)
    delete bench.faults.write
    delete bench.faults.probe
    bench.clock.advance(RETRY_MS)
    await until(() => store.writable, 'the store is writable again')
    assert.deepEqual(await put(blob, other), [true, true, true])
    assert.equal(await blob.settled(), 'complete')
    assert.equal(store.stats().bytes, 1000 + other.byteLength)
  })
}

test('a store that closes while the disk refuses writes is scrubbed at its next start', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(2 * BLOCK_BYTES)
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  await put(blob, bytes, [0])
  bench.faults.write = () => systemError('ENOSPC')
  await put(blob, bytes, [1])
  await store.close()
  assert.equal(bench.logged('closes while').length, 1)
  delete bench.faults.write
  const again = await bench.store()
  assert.equal(bench.logged('scrubbed').length, 1)
  assert.ok(blockOf(bytes, 0).equals((await mustFind(again, blob.digest).read(0, BLOCK_BYTES))!))
})

test('EIO on a read makes the block that cannot be read a miss, and no other', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(4 * BLOCK_BYTES)
  const first = await bench.store()
  await putWhole(first, bytes)
  await first.close()
  const store = await bench.store()
  const blob = mustFind(store, digestOf(bytes))
  assert.ok(await blob.read(0, BLOCK_BYTES))
  bench.faults.read = (_, position) =>
    position === 2 * BLOCK_BYTES || position < BLOCK_BYTES ? systemError('EIO') : undefined
  assert.equal(await blob.read(100, 3 * BLOCK_BYTES), undefined)
  assert.deepEqual(blob.missing({ first: 0, end: 4 }), [
    { first: 0, end: 1 },
    { first: 2, end: 3 },
  ])
  assert.equal(store.writable, true)
  assert.equal(await bench.metric('shoal_store_bad_blocks_total'), 2)
  assert.ok(blockOf(bytes, 3).equals((await blob.read(3 * BLOCK_BYTES, BLOCK_BYTES))!))
})

test('a block that goes bad while it is being read is not served, even if it was good before', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(3 * BLOCK_BYTES)
  const blob = await putWhole(store, bytes)
  bench.faults.beforeRead = async () => {
    delete bench.faults.beforeRead
    await using file = await fs.open(bench.file(blob.digest), 'r+')
    await file.write(Buffer.alloc(10), 0, 10, BLOCK_BYTES + 100)
    assert.equal((await store.verify()).badBlocks, 1)
  }
  assert.equal(await blob.read(0, bytes.byteLength), undefined)
  assert.deepEqual(blob.missing({ first: 0, end: 3 }), [{ first: 1, end: 2 }])
})

test('a block that goes bad while another is read costs that one only a second look', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(3 * BLOCK_BYTES)
  const blob = await putWhole(store, bytes)
  let reads = 0
  bench.faults.beforeRead = async position => {
    if (position === 5) reads += 1
    if (reads !== 1) return
    reads += 1
    await using file = await fs.open(bench.file(blob.digest), 'r+')
    await file.write(Buffer.alloc(10), 0, 10, BLOCK_BYTES + 100)
    assert.equal((await store.verify()).badBlocks, 1)
  }
  assert.ok(bytes.subarray(5, 10).equals((await blob.read(5, 5))!))
  assert.equal(reads, 3)
})

test('a read that fails for want of descriptors drops nothing', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(1000)
  const blob = await putWhole(await bench.store(), bytes)
  bench.faults.read = () => systemError('EMFILE')
  await assert.rejects(blob.read(0, 10), (error: unknown) => {
    assert.equal(errorCode(error), 'ERR_STORE_IO')
    assert.equal(systemCode((error as Error).cause), 'EMFILE')
    return true
  })
  assert.equal(blob.has(0), true)
  delete bench.faults.read
  assert.ok(await blob.read(0, 10))
})

test('a read that is disturbed again and again says so, because its blocks are here', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(5 * BLOCK_BYTES)
  const store = await bench.store()
  const blob = await putWhole(store, bytes)
  await using file = await fs.open(bench.file(blob.digest), 'r+')
  let next = 1
  bench.faults.beforeRead = async position => {
    if (position !== 5) return
    await file.write(Buffer.alloc(10), 0, 10, next * BLOCK_BYTES + 100)
    next += 1
    assert.equal((await store.verify()).badBlocks, 1)
  }
  await assert.rejects(blob.read(5, 5), error => errorCode(error) === 'ERR_STORE_IO')
  assert.deepEqual(blob.missing({ first: 0, end: 5 }), [{ first: 1, end: 4 }])
  delete bench.faults.beforeRead
  assert.ok(bytes.subarray(5, 10).equals((await blob.read(5, 5))!))
})

test('a removed blob whose file is gone is dead for its holders too', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blob = await putWhole(store, contentOf(1000))
  const held = blob.hold()
  await store.remove(blob.digest)
  assert.equal(blob.has(0), true)
  bench.faults.read = () => systemError('ENOENT')
  assert.equal(await blob.read(0, 10), undefined)
  assert.equal(blob.has(0), false)
  held[Symbol.dispose]()
  await until(() => store.stats().pendingDeletionBytes === 0, 'the file is deleted')
})

test('a proven blob is complete in the index only when it has reached the disk', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  let flush = (): void => assert.fail()
  let uses = 0
  bench.faults.descriptor = async fd => {
    uses += 1
    // The first use is the hash.
    if (uses === 2) await new Promise<void>(resolve => (flush = resolve))
    return fd
  }
  const blob = await putWhole(store, contentOf(1000))
  await until(() => uses === 2, 'the blob is about to be flushed')
  const states = async (): Promise<unknown[]> => {
    const listed = []
    for await (const { state } of store.list()) listed.push(state)
    const db = new Database(path.join(bench.directory, 'index.db'), { readonly: true })
    const row = db.prepare('SELECT state, (SELECT count(*) FROM open_blob) AS open FROM blob').get()
    db.close()
    return [blob.state, ...listed, row]
  }
  assert.deepEqual(await states(), ['complete', 'complete', { state: 'partial', open: 1 }])
  flush()
  await store.close()
  const db = new Database(path.join(bench.directory, 'index.db'), { readonly: true })
  assert.equal(db.prepare('SELECT state FROM blob').pluck().get(), 'complete')
  db.close()
})

test('a blob that does not reach the disk is forgotten, turns the store off, and no source is blamed', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  store.onQuarantine(() => assert.fail('nobody sent wrong bytes'))
  const bytes = contentOf(1000)
  let uses = 0
  bench.faults.descriptor = fd => {
    uses += 1
    return Promise.resolve(uses === 2 ? 999_999 : fd)
  }
  const blob = await putWhole(store, bytes)
  using held = blob.hold()
  assert.ok(held)
  await until(() => !store.writable, 'the store is off')
  await until(() => store.find(blob.digest) === undefined, 'the blob is forgotten')
  assert.equal(blob.has(0), false)
  assert.equal(bench.logged('did not reach the disk').length, 2)
  bench.clock.advance(RETRY_MS)
  await until(() => store.writable, 'the store is writable again')
  assert.equal((await putWhole(store, bytes)).state, 'complete')
})

test('a file that cannot be opened for its flush says nothing of the disk', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  let uses = 0
  bench.faults.descriptor = fd => {
    uses += 1
    return uses === 2 ? Promise.reject(systemError('EMFILE')) : Promise.resolve(fd)
  }
  const blob = await putWhole(store, contentOf(1000))
  await until(() => bench.logged('could not be flushed').length === 1, 'the flush fails')
  assert.deepEqual([store.writable, blob.state, blob.has(0)], [true, 'complete', true])
})

test('a file that vanishes before its flush takes its blob along', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  let uses = 0
  bench.faults.descriptor = fd => {
    uses += 1
    return uses === 2 ? Promise.reject(systemError('ENOENT')) : Promise.resolve(fd)
  }
  const blob = await putWhole(store, contentOf(1000))
  await until(() => store.find(blob.digest) === undefined, 'the blob is forgotten')
  assert.equal(store.writable, true)
})

test('a hash that cannot be made leaves the blob partial and drops what cannot be read', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(2 * BLOCK_BYTES)
  const store = await bench.store()
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  await put(blob, bytes, [1])
  await fs.truncate(bench.file(blob.digest), BLOCK_BYTES + 5)
  await put(blob, bytes, [0])
  assert.equal(await blob.settled(), 'partial')
  assert.equal(bench.logged('could not be hashed').length, 1)
  assert.deepEqual(blob.missing({ first: 0, end: 2 }), [{ first: 1, end: 2 }])
})

test('a data file that vanishes before it is hashed takes its blob along', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(1000)
  const first = await bench.store()
  await putWhole(first, bytes)
  await first.close()
  const db = new Database(path.join(bench.directory, 'index.db'))
  db.exec(`UPDATE blob SET state = 'partial'`)
  db.close()
  await fs.rm(bench.file(digestOf(bytes)))
  const store = await bench.store()
  const blob = mustFind(store, digestOf(bytes))
  assert.equal(await blob.settled(), 'partial')
  assert.equal(store.find(blob.digest), undefined)
})

test('an index that takes no rows turns the store off; nothing throws, and what waited is written later', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const [here, more] = [contentOf(1000, 1), contentOf(2 * BLOCK_BYTES, 2)]
  const whole = await putWhole(store, here)
  const blob = store.ensure(digestOf(more), { size: more.byteLength })
  await put(blob, more, [0])
  const db = new Database(path.join(bench.directory, 'index.db'))
  db.exec('BEGIN IMMEDIATE')
  bench.clock.advance(1000)
  await until(() => !store.writable, 'the batch fails')
  assert.equal(bench.logged('index write failed').length, 1)
  const unstored = store.ensure(digestOf(contentOf(5)), { size: 5 })
  assert.equal(unstored.has(0), false)
  assert.equal(unstored.reserve(5), undefined)
  assert.equal(await unstored.write(0, [contentOf(5)], 'a'), false)
  assert.equal(store.find(unstored.digest), undefined)
  store.places.put('r', 'n', whole.digest, { visibility: 'public', until: 5 })
  assert.deepEqual(store.places.where('r', 'n', whole.digest), { visibility: 'public', until: 5 })
  store.places.remove('r', 'n', whole.digest)
  store.manifests.put('r', 'n', 't', { digest: whole.digest, mediaType: 'a/b', size: 1, checkedAt: 1 })
  store.manifests.remove('r', 'n', 't')
  assert.throws(
    () => store.pin(whole.digest, true),
    error => errorCode(error) === 'ERR_STORE_IO',
  )
  assert.ok(here.equals((await whole.read(0, 1000))!))
  assert.equal(await store.remove(whole.digest), 1000)
  assert.equal(store.find(whole.digest), undefined)
  const anew = store.ensure(whole.digest, { size: 1000 })
  assert.equal(anew.has(0), false)

  db.exec('ROLLBACK')
  db.close()
  bench.clock.advance(RETRY_MS)
  await until(() => store.writable, 'the store is writable again')
  assert.equal(store.find(whole.digest), undefined)
  let listed = 0
  for await (const summary of store.list()) {
    listed += 1
    assert.equal(summary.presentBytes, BLOCK_BYTES)
  }
  assert.equal(listed, 1)
  assert.equal((await putWhole(store, here)).state, 'complete')
})

test('an index found damaged while it is used is looked at in full at the next start', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blob = await putWhole(store, contentOf(1000))
  await store.close()
  const file = path.join(bench.directory, 'index.db')
  const db = new Database(file)
  const root = db.prepare(`SELECT rootpage FROM sqlite_schema WHERE name = 'chunk'`).pluck().get() as number
  const page = db.pragma('page_size', { simple: true }) as number
  db.close()
  await using handle = await fs.open(file, 'r+')
  await handle.write(Buffer.alloc(page, 0xff), 0, page, (root - 1) * page)
  const damaged = await bench.store()
  assert.equal(bench.logged('index is corrupt').length, 0)
  assert.equal(mustFind(damaged, blob.digest).has(0), false)
  assert.equal(damaged.writable, false)
  const marked = async (): Promise<boolean> => (await fs.readdir(bench.directory)).includes('index.suspect')
  while (!(await marked())) await new Promise(setImmediate)
  await damaged.close()
  const fresh = await bench.store()
  assert.equal(bench.logged('index is corrupt').length, 1)
  assert.equal(await marked(), false)
  assert.equal(fresh.find(blob.digest), undefined)
})

test('an index found damaged while the disk is off already is marked all the same, once it can be', async () => {
  const marks: string[] = []
  const disk = new DiskHealth({
    log: silentLogger,
    clock: new ManualClock(),
    probe: () => Promise.resolve(),
    onCorruptIndex: () => {
      marks.push('asked')
      return marks.length === 1 ? Promise.reject(systemError('ENOSPC')) : Promise.resolve()
    },
    onRecovery: () => undefined,
  })
  disk.trouble(systemError('ENOSPC'), 'test')
  assert.deepEqual(marks, [])
  for (const count of [1, 2, 2]) {
    disk.trouble(systemError('SQLITE_CORRUPT'), 'test')
    await new Promise(setImmediate)
    assert.equal(marks.length, count)
  }
  await disk.close()
})

test('an index that cannot say what is cold stops eviction, and nothing else', async () => {
  await using bench = await Bench.open()
  const first = await bench.store()
  const bytes = contentOf(1000)
  await putWhole(first, bytes)
  await first.close()
  const file = path.join(bench.directory, 'index.db')
  const db = new Database(file)
  const root = db.prepare(`SELECT rootpage FROM sqlite_schema WHERE name = 'blob_accessed'`).pluck().get() as number
  const page = db.pragma('page_size', { simple: true }) as number
  db.close()
  await using handle = await fs.open(file, 'r+')
  await handle.write(Buffer.alloc(page, 0xff), 0, page, (root - 1) * page)
  const store = await bench.store()
  assert.deepEqual(await store.collect(0), { blobs: 0, bytes: 0 })
  assert.equal(store.writable, false)
  assert.ok(bytes.equals((await mustFind(store, digestOf(bytes)).read(0, 1000))!))
})

test('an index that was suspected wrongly is kept', async () => {
  await using bench = await Bench.open()
  const first = await bench.store()
  const blob = await putWhole(first, contentOf(1000))
  await first.close()
  await fs.writeFile(path.join(bench.directory, 'index.suspect'), '')
  assert.equal(mustFind(await bench.store(), blob.digest).state, 'complete')
  assert.ok(!(await fs.readdir(bench.directory)).includes('index.suspect'))
})

test('a file that cannot be renamed away is found by the next start', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blob = await putWhole(store, contentOf(1000))
  bench.faults.retire = () => systemError('EIO')
  assert.equal(await store.remove(blob.digest), 1000)
  assert.equal(store.find(blob.digest), undefined)
  assert.equal(bench.logged('could not be renamed').length, 1)
  assert.equal(store.stats().pendingDeletionBytes, 1000)
  await fs.access(bench.file(blob.digest))
  delete bench.faults.retire
  await store.close()
  await bench.store()
  await assert.rejects(fs.access(bench.file(blob.digest)), { code: 'ENOENT' })
})

const run = promisify(execFile)

test(
  'a disk that fills up never makes a write throw, and frees room for itself',
  { skip: process.getuid?.() === 0 ? false : 'mounting a small disk needs root' },
  async t => {
    await using bench = await Bench.open()
    const disk = path.join(bench.directory, 'disk')
    await fs.mkdir(disk)
    try {
      await run('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'shoal-test', disk])
    } catch {
      t.skip('this machine does not let us mount a tmpfs')
      return
    }
    const store = await bench.store({ path: disk })
    try {
      const [old, full] = [contentOf(3 * MIB, 1), contentOf(20 * MIB, 2)]
      await putWhole(store, old)
      const blob = store.ensure(digestOf(full), { size: full.byteLength })
      const held = blob.hold()
      const stored = await put(blob, full)
      assert.ok(stored.includes(true) && stored.includes(false))
      for (const [block, here] of stored.entries()) {
        const read = await blob.read(block * BLOCK_BYTES, BLOCK_BYTES)
        assert.equal(read !== undefined && blockOf(full, block).equals(read), here)
      }
      held[Symbol.dispose]()
      bench.clock.advance(RETRY_MS)
      await until(() => store.writable, 'the store is writable again')
      await store.collect(0)
      assert.equal((await putWhole(store, old)).state, 'complete')
    } finally {
      await store.close()
      await run('umount', [disk])
    }
  },
)
