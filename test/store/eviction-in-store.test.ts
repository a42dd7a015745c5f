import assert from 'node:assert/strict'
import Database from 'better-sqlite3'
import fs from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { BLOCK_BYTES, BLOCKS_PER_CHUNK, CHUNK_BYTES } from '../../src/core/index.ts'
import type { ChunkStore, StoredBlob } from '../../src/store/index.ts'
import { Bench, blockOf, contentOf, digestOf, MIB, put, putWhole, systemError, until } from './harness.ts'

async function three(store: ChunkStore): Promise<[StoredBlob, StoredBlob, StoredBlob]> {
  const [a, b, c] = [contentOf(MIB, 1), contentOf(MIB, 2), contentOf(MIB, 3)]
  return [await putWhole(store, a), await putWhole(store, b), await putWhole(store, c)]
}

test('collect() evicts the least recently used and leaves what is held or pinned', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const [a, b, c] = await three(store)
  a.touch()
  assert.deepEqual(await store.collect(2 * MIB), { blobs: 1, bytes: MIB })
  assert.deepEqual(
    [a, b, c].map(blob => store.find(blob.digest) !== undefined),
    [true, false, true],
  )
  assert.equal(b.has(0), false)
  await assert.rejects(fs.access(bench.file(b.digest)), { code: 'ENOENT' })
  const held = c.hold()
  store.pin(a.digest, true)
  assert.deepEqual(await store.collect(0), { blobs: 0, bytes: 0 })
  held[Symbol.dispose]()
  held[Symbol.dispose]()
  store.pin(a.digest, false)
  assert.deepEqual(await store.collect(0), { blobs: 2, bytes: 2 * MIB })
  assert.equal(store.stats().bytes, 0)
  assert.equal(await bench.metric('shoal_store_evicted_bytes_total'), 3 * MIB)
})

test('the order of use and pins outlive a restart', async () => {
  await using bench = await Bench.open()
  const first = await bench.store()
  const [a, b, c] = await three(first)
  a.touch()
  first.pin(b.digest, true)
  await first.close()
  const store = await bench.store()
  await store.collect(2 * MIB)
  assert.deepEqual(
    [a, b, c].map(blob => store.find(blob.digest) !== undefined),
    [true, true, false],
  )
})

test('above the soft limit blobs go in the background; at the hard limit nothing is let in', async () => {
  await using bench = await Bench.open()
  const store = await bench.store({ maxBytes: 2 * MIB })
  const [a, b] = await three(store)
  await until(() => store.find(a.digest) === undefined, 'the oldest blob goes')
  await until(() => store.stats().bytes <= 2 * MIB, 'the store is within its limit')
  assert.equal(store.find(b.digest) !== undefined, true)
  const big = store.ensure(digestOf(contentOf(40 * MIB, 9)), { size: 40 * MIB })
  using held = big.hold()
  assert.ok(held)
  assert.equal(big.reserve(19 * MIB), undefined)
  const lease = big.reserve(15 * MIB)
  assert.equal(lease?.bytes, 15 * MIB)
  assert.equal(big.reserve(4 * MIB), undefined)
  await until(() => store.stats().bytes === 0, 'room is made for the reservation')
  await until(() => store.stats().pendingDeletionBytes === 0, 'the files are deleted')
  lease[Symbol.dispose]()
  const all = big.reserve(18 * MIB)
  assert.equal(all?.bytes, 18 * MIB)
  all[Symbol.dispose]()
})

test('a block without a reservation is stored while there is room, and not at the hard limit', async () => {
  await using bench = await Bench.open()
  const store = await bench.store({ maxBytes: MIB })
  const bytes = contentOf(20 * MIB)
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  using held = blob.hold()
  assert.ok(held)
  const stored = await put(blob, bytes)
  assert.equal(stored.filter(Boolean).length, (17 * MIB) / BLOCK_BYTES)
  assert.equal(store.stats().bytes, 17 * MIB)
  assert.equal(store.writable, true)
})

test('of a blob that is more than half of the limit only its coldest chunks go, and the disk gets them back', async () => {
  await using bench = await Bench.open()
  const store = await bench.store({ maxBytes: 6 * CHUNK_BYTES })
  const bytes = contentOf(5 * CHUNK_BYTES)
  const blob = await putWhole(store, bytes)
  const before = (await fs.stat(bench.file(blob.digest))).blocks
  for (const chunk of [0, 2, 4]) await blob.read(chunk * CHUNK_BYTES, 10)
  assert.deepEqual(await store.collect(3 * CHUNK_BYTES), { blobs: 0, bytes: 2 * CHUNK_BYTES })
  const chunk = (index: number): { first: number; end: number } => ({
    first: index * BLOCKS_PER_CHUNK,
    end: (index + 1) * BLOCKS_PER_CHUNK,
  })
  assert.deepEqual(blob.missing({ first: 0, end: 80 }), [chunk(1), chunk(3)])
  assert.equal(blob.state, 'partial')
  const after = (await fs.stat(bench.file(blob.digest))).blocks
  assert.ok(before - after >= (2 * CHUNK_BYTES * 0.9) / 512)
  assert.equal(store.stats().bytes, 3 * CHUNK_BYTES)
  assert.equal(store.stats().pendingDeletionBytes, 0)
  assert.ok(blockOf(bytes, 0).equals((await blob.read(0, BLOCK_BYTES))!))
  await put(blob, bytes)
  assert.equal(await blob.settled(), 'complete')
  await store.close()
  const again = await bench.store({ maxBytes: 6 * CHUNK_BYTES })
  assert.equal(again.stats().bytes, 5 * CHUNK_BYTES)
})

test('writes that come while chunks are punched out wait, and are not lost', async () => {
  await using bench = await Bench.open()
  const store = await bench.store({ maxBytes: 3 * CHUNK_BYTES })
  const bytes = contentOf(2 * CHUNK_BYTES)
  const blob = await putWhole(store, bytes)
  const collecting = store.collect(CHUNK_BYTES)
  await until(() => !blob.has(0), 'the coldest chunk is dropped')
  const writing = put(blob, bytes)
  await Promise.all([collecting, writing])
  assert.equal(await blob.settled(), 'complete')
  assert.ok(bytes.equals((await blob.read(0, bytes.byteLength))!))
  assert.equal(store.stats().bytes, 2 * CHUNK_BYTES)
})

test('where holes cannot be punched the whole blob goes', async () => {
  await using bench = await Bench.open()
  const store = await bench.store({ maxBytes: 3 * CHUNK_BYTES })
  const blob = await putWhole(store, contentOf(2 * CHUNK_BYTES))
  bench.faults.punch = () => systemError('EOPNOTSUPP')
  assert.deepEqual(await store.collect(CHUNK_BYTES), { blobs: 0, bytes: 2 * CHUNK_BYTES })
  assert.equal(store.find(blob.digest), undefined)
  await until(() => store.stats().pendingDeletionBytes === 0, 'the file is deleted')
  assert.equal(store.stats().bytes, 0)
})

test('a disk that runs low makes the store smaller, whatever its own limit', async () => {
  await using bench = await Bench.open()
  let free = 100 * MIB
  bench.faults.freeBytes = () => free
  const store = await bench.store({ minFreeBytes: 50 * MIB })
  const [a] = await three(store)
  free = 49 * MIB
  bench.clock.advance(2000)
  const blob = store.ensure(digestOf(contentOf(10)), { size: 10 })
  blob.reserve(10)?.[Symbol.dispose]()
  await until(() => store.find(a.digest) === undefined, 'something goes')
  assert.equal(blob.reserve(10 * MIB), undefined)
})

test('eviction that could not free anything is tried again, but not at once', async () => {
  await using bench = await Bench.open()
  const store = await bench.store({ maxBytes: MIB })
  const bytes = contentOf(4 * MIB)
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  const held = blob.hold()
  await put(blob, bytes)
  await blob.settled()
  // Runs one after the other: when this one is over, those in the background are.
  await store.collect(100 * MIB)
  held[Symbol.dispose]()
  blob.reserve(1)?.[Symbol.dispose]()
  await store.collect(100 * MIB)
  assert.deepEqual(blob.missing({ first: 0, end: 16 }), [])
  bench.clock.advance(1000)
  blob.reserve(1)?.[Symbol.dispose]()
  await until(() => store.stats().bytes <= MIB, 'it goes')
})

test('collect() deletes files that no row knows, and no others', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blob = await putWhole(store, contentOf(1000))
  const orphan = bench.file(digestOf(contentOf(7)))
  await fs.mkdir(orphan.slice(0, -65), { recursive: true })
  await fs.writeFile(orphan, Buffer.alloc(4096, 1))
  await fs.writeFile(`${orphan.slice(0, -65)}/README`, 'not ours')
  const freed = await store.collect()
  assert.equal(freed.blobs, 1)
  assert.ok(freed.bytes >= 4096)
  await assert.rejects(fs.access(orphan), { code: 'ENOENT' })
  await fs.access(bench.file(blob.digest))
  await fs.access(`${orphan.slice(0, -65)}/README`)
})

test('many small blobs leave a few at a time', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blobs = []
  for (let seed = 1; seed <= 100; seed += 1) blobs.push(await putWhole(store, contentOf(100, seed)))
  let most = 0
  let before = store.stats().blobs
  const run = { done: false }
  const collecting = store.collect(10 * 100).finally(() => (run.done = true))
  while (!run.done) {
    await new Promise(setImmediate)
    most = Math.max(most, before - store.stats().blobs)
    before = store.stats().blobs
  }
  assert.deepEqual(await collecting, { blobs: 90, bytes: 90 * 100 })
  assert.ok(most >= 1 && most <= 16, `${most} at once`)
})

test('an eviction ends as soon as there is room enough', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blobs = []
  for (let seed = 1; seed <= 60; seed += 1) blobs.push(await putWhole(store, contentOf(100, seed)))
  const collecting = store.collect(30 * 100)
  await until(() => store.stats().blobs < 60, 'the first ones leave')
  // What the user removes meanwhile makes all the room that was wanted.
  const removals = blobs.slice(30).map(blob => store.remove(blob.digest))
  await Promise.all([collecting, ...removals])
  assert.ok(store.stats().blobs > 0)
})

test('a blob that cannot be evicted does not keep the others from it', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blob = await putWhole(store, contentOf(1000))
  const db = new Database(path.join(bench.directory, 'index.db'))
  const insert = `INSERT INTO blob (digest, size, state, created, accessed) VALUES (?, ?, 'partial', 0, 0)`
  db.prepare(insert).run(digestOf(contentOf(5)), BigInt(Number.MAX_SAFE_INTEGER))
  db.close()
  assert.deepEqual(await store.collect(0), { blobs: 1, bytes: 1000 })
  assert.equal(store.find(blob.digest), undefined)
  assert.equal(bench.logged('could not be evicted').length, 1)
})

test('a very large blob is trimmed a few chunks at a time; writes that come meanwhile wait, and a removal ends it', async () => {
  await using bench = await Bench.open()
  const chunks = 200
  const store = await bench.store({ maxBytes: 60 * MIB })
  const size = chunks * CHUNK_BYTES
  const bytes = contentOf(BLOCK_BYTES)
  const firsts = Array.from({ length: chunks }, (_, chunk) => chunk * BLOCKS_PER_CHUNK)
  for (const ending of ['written', 'removed']) {
    const blob = store.ensure(digestOf(Buffer.from(ending)), { size })
    for (const block of firsts) assert.equal(await blob.write(block, [bytes], 'a'), true)
    const present = (): number => firsts.filter(block => blob.has(block)).length
    assert.equal(present(), chunks)
    let most = 0
    let before = present()
    const collecting = store.collect(5 * BLOCK_BYTES)
    while (before > chunks / 2) {
      await new Promise(setImmediate)
      most = Math.max(most, before - present())
      before = present()
    }
    assert.ok(most <= 64, `${most} at once`)
    if (ending === 'written') {
      assert.equal(blob.has(0), false)
      assert.equal(await blob.write(0, [bytes], 'a'), true)
      assert.deepEqual(await collecting, { blobs: 0, bytes: (chunks - 5) * BLOCK_BYTES })
      assert.ok(bytes.equals((await blob.read(0, BLOCK_BYTES))!))
      assert.equal(store.stats().bytes, 6 * BLOCK_BYTES)
      await store.remove(blob.digest)
    } else {
      await Promise.all([store.remove(blob.digest), collecting])
    }
    await until(() => store.stats().pendingDeletionBytes === 0, 'the file is deleted')
    assert.equal(store.stats().bytes, 0)
  }
})

test('rows of blobs that never got a byte go when their turn comes', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const never = store.ensure(digestOf(contentOf(5)), { size: 5 })
  await three(store)
  await store.collect(2 * MIB)
  assert.equal(store.find(never.digest), undefined)
})

test('a manifest goes with the blob of its body, and so do the places', async () => {
  await using bench = await Bench.open()
  const first = await bench.store()
  const [a, b] = await three(first)
  for (const blob of [a, b]) {
    first.places.put('r', 'n', blob.digest, { visibility: 'public', until: 1 })
    first.manifests.put('r', 'n', blob.digest, { digest: blob.digest, mediaType: 'x/y', size: MIB, checkedAt: 1 })
  }
  await first.remove(a.digest)
  await first.close()
  const store = await bench.store()
  assert.equal(store.manifests.get('r', 'n', a.digest), undefined)
  assert.equal(store.places.where('r', 'n', a.digest), undefined)
  assert.ok(store.manifests.get('r', 'n', b.digest))
  assert.ok(store.places.where('r', 'n', b.digest))
})
