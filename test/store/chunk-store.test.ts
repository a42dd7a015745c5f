import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  BLOCK_BYTES,
  BLOCKS_PER_CHUNK,
  blockCount,
  CHUNK_BYTES,
  errorCode,
  MAX_BLOB_BYTES,
} from '../../src/core/index.ts'
import type { QuarantineEvent } from '../../src/store/index.ts'
import { Bench, blockOf, contentOf, digestOf, mustFind, put, putWhole, until } from './harness.ts'

test('whatever the order of its blocks, a blob reads as it was written, also after a restart', async () => {
  await using bench = await Bench.open()
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 5 * BLOCK_BYTES }),
      fc.integer({ min: 1, max: 1_000_000 }),
      fc.array(fc.nat(), { minLength: 6, maxLength: 6 }),
      fc.nat(),
      fc.nat(),
      async (size, seed, keys, a, b) => {
        const bytes = contentOf(size, seed)
        const order = Array.from({ length: blockCount(size) }, (_, block) => ({ block, key: keys[block] ?? 0 }))
        const blocks = order.toSorted((x, y) => x.key - y.key).map(({ block }) => block)
        const [start, end] = [a % (size + 1), b % (size + 1)].toSorted((x, y) => x - y) as [number, number]
        for (const run of ['fresh', 'reopened']) {
          await using store = await bench.store()
          const blob = store.ensure(digestOf(bytes), { size })
          if (run === 'fresh') await put(blob, bytes, blocks)
          assert.equal(await blob.settled(), 'complete')
          const read = await blob.read(start, end - start)
          assert.ok(read !== undefined && bytes.subarray(start, end).equals(read))
          assert.ok(bytes.equals((await blob.read(0, size))!))
        }
      },
    ),
    { numRuns: 10 },
  )
})

test('the bytes of the store are the sum of what is present, whatever is written, removed and reopened', async () => {
  await using bench = await Bench.open()
  const blobs = [1, 2, 3].map(seed => contentOf(3 * BLOCK_BYTES + seed * 1000, seed))
  const step = fc.oneof(
    fc.record({ kind: fc.constant('write' as const), blob: fc.nat(2), block: fc.nat(3) }),
    fc.record({ kind: fc.constant('remove' as const), blob: fc.nat(2) }),
    fc.record({ kind: fc.constant('reopen' as const) }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), async steps => {
      let store = await bench.store()
      const present = new Map<string, number>()
      for (const digest of blobs.map(bytes => digestOf(bytes))) await store.remove(digest)
      for (const action of steps) {
        if (action.kind === 'reopen') {
          await store.close()
          store = await bench.store()
        } else if (action.kind === 'write') {
          const bytes = blobs[action.blob]!
          const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
          await put(blob, bytes, [action.block])
          present.set(`${action.blob} ${action.block}`, blockOf(bytes, action.block).byteLength)
          await blob.settled()
        } else {
          await store.remove(digestOf(blobs[action.blob]!))
          for (let block = 0; block < 4; block += 1) present.delete(`${action.blob} ${block}`)
        }
        const expected = [...present.values()].reduce((sum, bytes) => sum + bytes, 0)
        assert.equal(store.stats().bytes, expected)
        let listed = 0
        for await (const { presentBytes } of store.list()) listed += presentBytes
        assert.equal(listed, expected)
      }
      await store.close()
    }),
    { numRuns: 15 },
  )
})

test('blocks that were written are present, others are missing, and only whole ranges are read', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(5 * BLOCK_BYTES + 100)
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength, mediaType: 'application/x-layer' })
  assert.deepEqual([blob.state, blob.size, blob.mediaType], ['partial', bytes.byteLength, 'application/x-layer'])
  assert.deepEqual(await put(blob, bytes, [1, 2, 5]), [true, true, true])
  assert.deepEqual(
    [0, 1, 2, 3, 4, 5].map(block => blob.has(block)),
    [false, true, true, false, false, true],
  )
  assert.deepEqual(blob.missing({ first: 0, end: 6 }), [
    { first: 0, end: 1 },
    { first: 3, end: 5 },
  ])
  assert.ok(
    bytes.subarray(BLOCK_BYTES + 7, 3 * BLOCK_BYTES).equals((await blob.read(BLOCK_BYTES + 7, 2 * BLOCK_BYTES - 7))!),
  )
  assert.equal(await blob.read(BLOCK_BYTES, 2 * BLOCK_BYTES + 1), undefined)
  assert.equal(await blob.settled(), 'partial')
  assert.equal(mustFind(store, blob.digest), blob)
})

test('a read takes nothing but ranges within the blob', async () => {
  await using bench = await Bench.open()
  const blob = await putWhole(await bench.store(), contentOf(1000))
  for (const [position, length] of [
    [-1, 1],
    [0, 1001],
    [1000, 1],
    [0, -1],
    [Number.NaN, 1],
  ] as const) {
    await assert.rejects(blob.read(position, length), RangeError)
  }
  assert.equal((await blob.read(1000, 0))?.byteLength, 0)
  assert.equal(blob.readNow(new Uint8Array(10), 995), false)
  assert.equal(blob.readNow(new Uint8Array(0), 1000), true)
})

test('what was just written is read without waiting; after a restart only what has proven itself', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(2 * BLOCK_BYTES)
  const first = await bench.store()
  const blob = await putWhole(first, bytes)
  const target = Buffer.alloc(BLOCK_BYTES)
  assert.equal(blob.readNow(target, 1000), true)
  assert.ok(target.equals(bytes.subarray(1000, 1000 + BLOCK_BYTES)))
  await first.close()
  const again = mustFind(await bench.store(), digestOf(bytes))
  assert.equal(again.state, 'complete')
  assert.equal(again.readNow(target, 0), false)
  assert.ok(await again.read(10, 10))
  assert.equal(again.readNow(target, 0), true)
  assert.equal(again.readNow(target, 1), false)
})

test('a block that is there already is not written again, and one that is being written is written once', async () => {
  await using bench = await Bench.open()
  let writes = 0
  bench.faults.write = () => {
    writes += 1
    return undefined
  }
  const blob = (await bench.store()).ensure(digestOf(contentOf(BLOCK_BYTES * 2)), { size: BLOCK_BYTES * 2 })
  const block = blockOf(contentOf(BLOCK_BYTES * 2), 0)
  const both = await Promise.all([blob.write(0, [block], 'a'), blob.write(0, [block], 'b')])
  assert.deepEqual(both, [true, true])
  assert.equal(await blob.write(0, [block], 'c'), true)
  assert.equal(writes, 1)
})

test('a block of another length, or none of the blob, is refused as a mistake', async () => {
  await using bench = await Bench.open()
  const blob = (await bench.store()).ensure(digestOf(contentOf(BLOCK_BYTES + 5)), { size: BLOCK_BYTES + 5 })
  await assert.rejects(blob.write(0, [Buffer.alloc(BLOCK_BYTES - 1)], 'a'), RangeError)
  await assert.rejects(blob.write(1, [Buffer.alloc(6)], 'a'), RangeError)
  await assert.rejects(blob.write(2, [], 'a'), RangeError)
  await assert.rejects(blob.write(-1, [Buffer.alloc(BLOCK_BYTES)], 'a'), RangeError)
})

test('many pieces, empty ones among them, make one block', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(BLOCK_BYTES)
  const store = await bench.store()
  const blob = store.ensure(digestOf(bytes), { size: BLOCK_BYTES })
  const pieces = Array.from({ length: 2048 }, (_, i) => Buffer.from(bytes.subarray(i * 128, (i + 1) * 128)))
  assert.equal(await blob.write(0, [Buffer.alloc(0), ...pieces, Buffer.alloc(0)], 'a'), true)
  assert.equal(await blob.settled(), 'complete')
})

test('bytes that do not hash to the digest are quarantined, named by source, and may be stored anew', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(3 * BLOCK_BYTES)
  const wrong = Buffer.from(bytes)
  wrong[BLOCK_BYTES] = (wrong[BLOCK_BYTES] ?? 0) ^ 1
  const store = await bench.store()
  const events: QuarantineEvent[] = []
  store.onQuarantine(() => assert.fail('listeners may throw'))
  const stop = store.onQuarantine(event => events.push(event))
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  using held = blob.hold()
  assert.ok(held)
  await put(blob, wrong, [0, 2], 'registry:good')
  await put(blob, wrong, [1], 'mirror:bad')
  assert.equal(await blob.settled(), 'quarantined')
  assert.deepEqual(events, [{ digest: blob.digest, sources: ['registry:good', 'mirror:bad'] }])
  assert.equal(bench.logged('quarantined').length, 1)
  assert.equal(await bench.metric('shoal_store_quarantined_total'), 1)
  assert.equal(store.find(blob.digest), undefined)
  assert.equal(blob.state, 'quarantined')
  assert.equal(blob.has(0), false)
  assert.deepEqual(blob.missing({ first: 0, end: 9 }), [{ first: 0, end: 3 }])
  assert.equal(await blob.read(0, 1), undefined)
  assert.equal(blob.readNow(new Uint8Array(1), 0), false)
  assert.equal(await blob.write(0, [blockOf(bytes, 0)], 'registry:good'), false)
  assert.equal(blob.reserve(1), undefined)
  stop()
  const anew = await putWhole(store, bytes)
  assert.notEqual(anew, blob)
  assert.equal(anew.state, 'complete')
  assert.ok(bytes.equals((await anew.read(0, bytes.byteLength))!))
  await until(() => store.stats().pendingDeletionBytes === 0, 'the quarantined file is deleted')
  assert.equal(store.stats().bytes, bytes.byteLength)
})

test('bytes that the disk changed before the hash was made are dropped, and no source is blamed', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(2 * BLOCK_BYTES)
  const store = await bench.store()
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  await put(blob, bytes, [0])
  await using file = await fs.open(bench.file(blob.digest), 'r+')
  await file.write(Buffer.from([(bytes[77] ?? 0) ^ 255]), 0, 1, 77)
  await put(blob, bytes, [1])
  assert.equal(await blob.settled(), 'partial')
  assert.deepEqual(blob.missing({ first: 0, end: 2 }), [{ first: 0, end: 1 }])
  assert.equal(bench.logged('quarantined').length, 0)
  await put(blob, bytes, [0])
  assert.equal(await blob.settled(), 'complete')
})

test('a block that went bad and was fetched again while the blob was judged does not convict its sources', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(3 * BLOCK_BYTES)
  const store = await bench.store()
  store.onQuarantine(() => assert.fail('every source was right'))
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  await put(blob, bytes, [0, 1])
  await using file = await fs.open(bench.file(blob.digest), 'r+')
  await file.write(Buffer.from([(bytes[77] ?? 0) ^ 255]), 0, 1, 77)
  bench.faults.beforeRead = async position => {
    assert.equal(position, 0)
    delete bench.faults.beforeRead
    // The hash is made, and the first block is about to be compared with its row.
    assert.equal((await store.verify()).badBlocks, 1)
    await put(blob, bytes, [0])
  }
  await put(blob, bytes, [2])
  assert.equal(await blob.settled(), 'complete')
  assert.equal(bench.faults.beforeRead, undefined)
  assert.ok(bytes.equals((await blob.read(0, bytes.byteLength))!))
})

test('sha512 blobs are proven like others', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(BLOCK_BYTES + 1)
  const digest = digestOf(bytes, 'sha512')
  const blob = store.ensure(digest, { size: bytes.byteLength })
  await put(blob, bytes)
  assert.equal(await blob.settled(), 'complete')
  await fs.access(bench.file(digest))
})

test('a blob of no bytes is complete at once, and quarantined if it should hash to something', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const empty = store.ensure(digestOf(Buffer.alloc(0)), { size: 0 })
  assert.equal(empty.state, 'complete')
  assert.equal(await empty.settled(), 'complete')
  assert.equal((await empty.read(0, 0))?.byteLength, 0)
  assert.deepEqual(empty.missing({ first: 0, end: 1 }), [])
  const wrong = store.ensure(digestOf(contentOf(5)), { size: 0 })
  assert.equal(wrong.state, 'quarantined')
  assert.equal(await wrong.settled(), 'quarantined')
  assert.equal(store.find(wrong.digest), undefined)
})

test('a size may be corrected while nothing is present, and not after', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(2 * BLOCK_BYTES)
  const digest = digestOf(bytes)
  const lie = store.ensure(digest, { size: 17 })
  const blob = store.ensure(digest, { size: bytes.byteLength, mediaType: 'x/y' })
  assert.notEqual(lie, blob)
  assert.equal(await lie.write(0, [Buffer.alloc(17)], 'a'), false)
  await put(blob, bytes, [0])
  assert.throws(
    () => store.ensure(digest, { size: 17 }),
    (error: unknown) => {
      assert.equal(errorCode(error), 'ERR_STORE_CORRUPT')
      assert.deepEqual((error as { details: unknown }).details, { known: bytes.byteLength, offered: 17 })
      return true
    },
  )
  assert.throws(() => store.ensure(digest, { size: -1 }), RangeError)
  assert.throws(() => store.ensure(digest, { size: 0.5 }), RangeError)
})

test('a size beyond all blobs is refused, and leaves no trace', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const digest = digestOf(contentOf(10))
  for (const size of [MAX_BLOB_BYTES + 1, Number.MAX_SAFE_INTEGER]) {
    assert.throws(
      () => store.ensure(digest, { size }),
      error => errorCode(error) === 'ERR_LIMIT_EXCEEDED',
    )
  }
  assert.equal(store.find(digest), undefined)
  assert.equal(store.stats().blobs, 0)
  assert.equal(store.ensure(digest, { size: MAX_BLOB_BYTES }).size, MAX_BLOB_BYTES)
})

test('a media type that comes later is kept, and the first one stays', async () => {
  await using bench = await Bench.open()
  const first = await bench.store()
  const digest = digestOf(contentOf(10))
  first.ensure(digest, { size: 10 })
  assert.equal(first.ensure(digest, { size: 10, mediaType: 'a/b' }).mediaType, 'a/b')
  assert.equal(first.ensure(digest, { size: 10, mediaType: 'c/d' }).mediaType, 'a/b')
  await first.close()
  assert.equal(mustFind(await bench.store(), digest).mediaType, 'a/b')
})

test('a removed blob is unknown at once, stays readable for who holds it, and its bytes go with the last holder', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(2 * BLOCK_BYTES)
  const blob = await putWhole(store, bytes)
  const [one, two] = [blob.hold(), blob.hold()]
  assert.equal(await store.remove(blob.digest), bytes.byteLength)
  assert.equal(await store.remove(blob.digest), undefined)
  assert.equal(store.find(blob.digest), undefined)
  const { bytes: stored, pendingDeletionBytes } = store.stats()
  assert.deepEqual([stored, pendingDeletionBytes], [0, bytes.byteLength])
  const anew = store.ensure(blob.digest, { size: bytes.byteLength })
  assert.notEqual(anew, blob)
  await put(anew, bytes, [1])
  one[Symbol.dispose]()
  one[Symbol.dispose]()
  assert.ok(bytes.equals((await blob.read(0, bytes.byteLength))!))
  assert.equal(await blob.write(0, [blockOf(bytes, 0)], 'a'), true)
  two[Symbol.dispose]()
  assert.equal(blob.has(0), false)
  assert.equal(blob.state, 'partial')
  await until(() => store.stats().pendingDeletionBytes === 0, 'the removed file is deleted')
  assert.deepEqual(await fs.readdir(`${bench.directory}/trash`), [])
  assert.equal(anew.has(1), true)
  assert.ok(blockOf(bytes, 1).equals((await anew.read(BLOCK_BYTES, BLOCK_BYTES))!))
})

test('a removed blob that nobody uses is gone when remove() resolves', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blob = await putWhole(store, contentOf(1000))
  assert.equal(await store.remove(blob.digest), 1000)
  await assert.rejects(fs.access(bench.file(blob.digest)), { code: 'ENOENT' })
  assert.equal(store.stats().pendingDeletionBytes, 0)
  assert.equal(store.stats().blobs, 0)
})

test('an old file and a new one of the same digest never mix, however their calls interleave', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(4 * BLOCK_BYTES)
  const digest = digestOf(bytes)
  for (let round = 0; round < 20; round += 1) {
    const old = store.ensure(digest, { size: bytes.byteLength })
    const writing = put(old, bytes, [round % 4])
    const garbage = old.write((round + 1) % 4, [Buffer.alloc(BLOCK_BYTES, round)], 'liar')
    if (round % 3 > 0) await new Promise(setImmediate)
    const removed = store.remove(digest)
    const anew = store.ensure(digest, { size: bytes.byteLength })
    await put(anew, bytes)
    await Promise.all([writing, garbage, removed])
    assert.equal(await anew.settled(), 'complete')
    assert.ok(bytes.equals((await anew.read(0, bytes.byteLength))!))
    await store.remove(digest)
  }
  assert.equal(store.stats().bytes, 0)
  assert.equal(bench.logged('bad block').length, 0)
})

test('reads can be aborted before and during', async () => {
  await using bench = await Bench.open()
  const blob = await putWhole(await bench.store(), contentOf(1000))
  const reason = new Error('enough')
  await assert.rejects(blob.read(0, 10, { signal: AbortSignal.abort(reason) }), reason)
  const controller = new AbortController()
  const reading = blob.read(0, 10, { signal: controller.signal })
  controller.abort(reason)
  await assert.rejects(reading, reason)
  await assert.rejects(blob.settled({ signal: AbortSignal.abort(reason) }), reason)
  assert.ok(await blob.read(0, 10))
})

test('recently written blocks are read from memory, within the limit given', async () => {
  await using bench = await Bench.open()
  const store = await bench.store({ memoryBytes: 2 * BLOCK_BYTES })
  const bytes = contentOf(4 * BLOCK_BYTES)
  const blob = await putWhole(store, bytes)
  let reads = 0
  bench.faults.read = () => {
    reads += 1
    return undefined
  }
  assert.ok(bytes.subarray(2 * BLOCK_BYTES + 5).equals((await blob.read(2 * BLOCK_BYTES + 5, 2 * BLOCK_BYTES - 5))!))
  assert.equal(reads, 0)
  assert.ok(bytes.subarray(0, 10).equals((await blob.read(0, 10))!))
  assert.equal(reads, 1)
  const metric = await bench.registry.getSingleMetric('shoal_store_block_reads_total')?.get()
  const by = metric?.values.map(({ labels, value }) => `${labels['from'] ?? ''} ${value}`)
  assert.deepEqual(by, ['memory 2', 'disk 1'])
})

test('a partial blob keeps its blocks over a restart, and a complete one its state', async () => {
  await using bench = await Bench.open()
  const [part, whole] = [contentOf(CHUNK_BYTES + BLOCK_BYTES, 1), contentOf(1234, 2)]
  const first = await bench.store()
  await put(first.ensure(digestOf(part), { size: part.byteLength }), part, [0, BLOCKS_PER_CHUNK])
  await putWhole(first, whole)
  await first.close()
  const second = await bench.store()
  const blob = mustFind(second, digestOf(part))
  assert.deepEqual(blob.missing({ first: 0, end: 17 }), [{ first: 1, end: 16 }])
  assert.ok(blockOf(part, 16).equals((await blob.read(CHUNK_BYTES, BLOCK_BYTES))!))
  assert.equal(mustFind(second, digestOf(whole)).state, 'complete')
  assert.equal(second.stats().bytes, 2 * BLOCK_BYTES + 1234)
  assert.equal(bench.logged('scrubbed').length, 0)
})

test('the list names every blob with what is known of it', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const whole = await putWhole(store, contentOf(1000, 1), 'a/b')
  const part = store.ensure(digestOf(contentOf(5000, 2)), { size: 5000 })
  assert.equal(store.pin(part.digest, true), true)
  assert.equal(store.pin(digestOf(contentOf(1)), true), false)
  const listed = []
  for await (const { created, accessed, ...summary } of store.list()) {
    assert.equal(created, bench.clock.now())
    assert.equal(accessed, bench.clock.now())
    listed.push(summary)
  }
  assert.deepEqual(listed, [
    { digest: whole.digest, size: 1000, presentBytes: 1000, state: 'complete', pinned: false, mediaType: 'a/b' },
    { digest: part.digest, size: 5000, presentBytes: 0, state: 'partial', pinned: true, mediaType: undefined },
  ])
})

test('gauges say what the store holds', async () => {
  await using bench = await Bench.open()
  const store = await bench.store({ maxBytes: 12345678 })
  await putWhole(store, contentOf(BLOCK_BYTES + 1))
  assert.equal(await bench.metric('shoal_store_bytes'), BLOCK_BYTES + 1)
  assert.equal(await bench.metric('shoal_store_blobs'), 1)
  assert.equal(await bench.metric('shoal_store_max_bytes'), 12345678)
  assert.equal(await bench.metric('shoal_store_writable'), 1)
  assert.equal(await bench.metric('shoal_store_blocks_written_total'), 2)
})

test('a blob beyond 4 GiB keeps its last blocks apart from its first', async () => {
  await using bench = await Bench.open()
  const size = 8 * 1024 ** 3 + 10
  const digest = digestOf(contentOf(10))
  const far = blockCount(size) - 1
  const first = await bench.store()
  const blob = first.ensure(digest, { size })
  await blob.write(0, [contentOf(BLOCK_BYTES, 1)], 'a')
  await blob.write(far - 1, [contentOf(BLOCK_BYTES, 2)], 'a')
  await blob.write(far, [contentOf(10, 3)], 'a')
  await first.close()
  const again = mustFind(await bench.store(), digest)
  assert.deepEqual(again.missing({ first: 0, end: far + 1 }), [{ first: 1, end: far - 1 }])
  assert.ok(contentOf(10, 3).equals((await again.read(size - 10, 10))!))
  assert.ok(contentOf(BLOCK_BYTES, 2).equals((await again.read((far - 1) * BLOCK_BYTES, BLOCK_BYTES))!))
})
