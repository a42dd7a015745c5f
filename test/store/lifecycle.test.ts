import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BLOCK_BYTES, errorCode } from '../../src/core/index.ts'
import type { ChunkStore, StoredBlob } from '../../src/store/index.ts'
import { Bench, blockOf, contentOf, digestOf, MIB, mustFind, put, putWhole, until } from './harness.ts'

const SMALL = contentOf(1000)
const digest = digestOf(SMALL)
const record = { digest, mediaType: 'a/b', size: 1000, checkedAt: 1 }

const STORE_METHODS: Record<string, (store: ChunkStore) => unknown> = {
  find: store => store.find(digest),
  ensure: store => store.ensure(digest, { size: 1000 }),
  list: store => store.list(),
  remove: store => store.remove(digestOf(contentOf(1))),
  pin: store => store.pin(digest, false),
  collect: store => store.collect(),
  verify: store => store.verify(),
  stats: store => store.stats(),
  onQuarantine: store => store.onQuarantine(() => undefined),
  'places.where': store => store.places.where('r', 'n', digest),
  'places.put': store => store.places.put('r', 'n', digest, { visibility: 'shared', until: 1 }),
  'places.remove': store => store.places.remove('r', 'n', digest),
  'manifests.get': store => store.manifests.get('r', 'n', 't'),
  'manifests.put': store => store.manifests.put('r', 'n', 't', record),
  'manifests.remove': store => store.manifests.remove('r', 'n', 't'),
}

const BLOB_METHODS: Record<string, (blob: StoredBlob) => unknown> = {
  hold: blob => blob.hold()[Symbol.dispose](),
  touch: blob => blob.touch(),
  has: blob => blob.has(0),
  missing: blob => blob.missing({ first: 0, end: 1 }),
  readNow: blob => blob.readNow(new Uint8Array(1), 0),
  read: blob => blob.read(0, 1),
  write: blob => blob.write(0, [SMALL], 'a'),
  reserve: blob => blob.reserve(1)?.[Symbol.dispose](),
  settled: blob => blob.settled(),
}

test('every method works on an open store, and throws ERR_CLOSED on one that closes or has closed', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blob = await putWhole(store, SMALL)
  const held = blob.hold()
  const calls = [
    ...Object.entries(STORE_METHODS).map(([name, call]) => [name, () => attempt(() => call(store))] as const),
    ...Object.entries(BLOB_METHODS).map(([name, call]) => [name, () => attempt(() => call(blob))] as const),
  ]
  for (const [name, call] of calls) await assert.doesNotReject(call(), name)
  const closing = store.close()
  for (const [name, call] of calls) await assert.rejects(call(), isClosed, `${name} while closing`)
  await closing
  for (const [name, call] of calls) await assert.rejects(call(), isClosed, `${name} after closing`)
  held[Symbol.dispose]()
  assert.equal(store.writable, false)
  assert.equal(blob.state, 'complete')
  await store.close()
  await store[Symbol.asyncDispose]()
})

/** A throw or a rejection, as a rejection. */
async function attempt(call: () => unknown): Promise<void> {
  await call()
}

function isClosed(error: unknown): boolean {
  return errorCode(error) === 'ERR_CLOSED'
}

test('closing waits for writes and reads that are under way, and keeps what they did', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(8 * BLOCK_BYTES)
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  await put(blob, bytes, [0])
  const writes = Promise.all([1, 2, 3].map(block => blob.write(block, [blockOf(bytes, block)], 'a')))
  const read = blob.read(0, BLOCK_BYTES)
  await store.close()
  assert.deepEqual(await writes, [true, true, true])
  assert.ok(blockOf(bytes, 0).equals((await read)!))
  const again = mustFind(await bench.store(), blob.digest)
  assert.deepEqual(again.missing({ first: 0, end: 8 }), [{ first: 4, end: 8 }])
  assert.equal(bench.logged('scrubbed').length, 0)
})

test('closing gives up on hashes after a while, and the next run makes them', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const large = contentOf(64 * MIB)
  const blob = store.ensure(digestOf(large), { size: large.byteLength })
  await put(blob, large)
  const settled = blob.settled()
  const closing = store.close()
  bench.clock.advance(10_000)
  await closing
  const verdict = await settled
  const again = mustFind(await bench.store(), blob.digest)
  assert.deepEqual([verdict, again.state, await again.settled()], ['partial', 'partial', 'complete'])
})

test('closing waits a little for hashes that are about to be made', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blob = store.ensure(digest, { size: 1000 })
  await blob.write(0, [SMALL], 'a')
  await store.close()
  assert.equal(mustFind(await bench.store(), digest).state, 'complete')
})

test('a listing that the store closes under ends with ERR_CLOSED', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  for (const seed of [1, 2]) await putWhole(store, contentOf(100, seed))
  const listing = store.list()[Symbol.asyncIterator]()
  await listing.next()
  await store.close()
  await assert.rejects(listing.next(), isClosed)
})

test('a blob held beyond the end of a store that removed it is cleaned up by the next start', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blob = await putWhole(store, SMALL)
  const held = blob.hold()
  await store.remove(digest)
  await store.close()
  held[Symbol.dispose]()
  const again = await bench.store()
  assert.equal(again.find(digest), undefined)
  assert.deepEqual([again.stats().bytes, again.stats().pendingDeletionBytes], [0, 0])
})

test('rows wait for company, at most a tenth of a second', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(2 * BLOCK_BYTES)
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  await put(blob, bytes, [0])
  assert.equal(bench.clock.sleeping, 1)
  bench.clock.advance(99)
  assert.equal(bench.clock.sleeping, 1)
  bench.clock.advance(1)
  await until(() => bench.clock.sleeping === 0, 'the batch is written')
})

test('one object stands for a blob while anybody refers to it, however many others are opened', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blob = store.ensure(digestOf(contentOf(10)), { size: 10 })
  for (let seed = 0; seed < 40; seed += 1) {
    // Each map takes half a mebibyte and more, so that these push the first one out of the table of recent blobs.
    const size = 20 * 1024 ** 3
    store.ensure(digestOf(Buffer.from([seed])), { size })
  }
  assert.equal(store.find(blob.digest), blob)
})
