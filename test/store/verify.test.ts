import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import { test } from 'node:test'
import { BLOCK_BYTES } from '../../src/core/index.ts'
import type { Digest } from '../../src/core/index.ts'
import type { VerifyProgress } from '../../src/store/index.ts'
import { Bench, contentOf, digestOf, put, putWhole, until } from './harness.ts'

async function flip(bench: Bench, digest: Digest, position: number): Promise<void> {
  await using file = await fs.open(bench.file(digest), 'r+')
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, position)
  await file.write(Buffer.from([(buffer[0] ?? 0) ^ 0x10]), 0, 1, position)
}

test('every present block is checked, bad ones become missing and are named', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const whole = await putWhole(store, contentOf(20 * BLOCK_BYTES + 5, 1))
  const bytes = contentOf(4 * BLOCK_BYTES, 2)
  const part = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  await put(part, bytes, [1, 3])
  store.ensure(digestOf(contentOf(5)), { size: 5 })
  for (const block of [0, 17, 20]) await flip(bench, whole.digest, block * BLOCK_BYTES + 3)
  await flip(bench, part.digest, BLOCK_BYTES)
  await flip(bench, part.digest, 0)
  const seen: VerifyProgress[] = []
  const report = await store.verify({ onProgress: done => seen.push(done) })
  const checkedBytes = 22 * BLOCK_BYTES + 5
  assert.deepEqual(report, {
    blobs: 3,
    checkedBytes,
    badBlocks: 4,
    bad: [
      { digest: whole.digest, blocks: [0, 17, 20] },
      { digest: part.digest, blocks: [1] },
    ],
  })
  assert.deepEqual(seen.at(-1), { checkedBytes, totalBytes: checkedBytes, badBlocks: 4 })
  assert.deepEqual(
    seen.map(done => done.checkedBytes),
    seen.map(done => done.checkedBytes).toSorted((a, b) => a - b),
  )
  assert.deepEqual(part.missing({ first: 0, end: 4 }), [{ first: 0, end: 3 }])
  assert.equal(whole.state, 'partial')
  assert.equal((await store.verify()).badBlocks, 0)
})

test('without repair bad blocks are reported and still never served', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(2 * BLOCK_BYTES)
  const blob = await putWhole(store, bytes)
  await flip(bench, blob.digest, 5)
  const report = await store.verify({ repair: false, digests: [digestOf(contentOf(9)), blob.digest] })
  assert.deepEqual([report.blobs, report.bad], [1, [{ digest: blob.digest, blocks: [0] }]])
  assert.equal(blob.has(0), true)
  assert.equal(blob.readNow(new Uint8Array(1), 0), false)
  assert.equal(await blob.read(0, 1), undefined)
  assert.equal(blob.has(0), false)
})

test('checking does not count as a use', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blobs = [await putWhole(store, contentOf(1000, 1)), await putWhole(store, contentOf(1000, 2))]
  blobs[0]?.touch()
  await store.verify()
  await store.collect(1000)
  assert.deepEqual(
    blobs.map(blob => store.find(blob.digest) !== undefined),
    [true, false],
  )
})

test('checking can be aborted', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  await putWhole(store, contentOf(40 * BLOCK_BYTES))
  const controller = new AbortController()
  const reason = new Error('enough')
  const onProgress = (): void => controller.abort(reason)
  await assert.rejects(store.verify({ signal: controller.signal, onProgress }), reason)
})

test('a blob whose file is gone is forgotten by the check', async () => {
  await using bench = await Bench.open()
  const first = await bench.store()
  const { digest } = await putWhole(first, contentOf(2 * BLOCK_BYTES))
  await first.close()
  await fs.rm(bench.file(digest))
  const store = await bench.store()
  const report = await store.verify()
  assert.deepEqual(report.bad, [{ digest, blocks: [0] }])
  assert.equal(store.find(digest), undefined)
  await until(() => store.stats().pendingDeletionBytes === 0, 'its rows are deleted')
})
