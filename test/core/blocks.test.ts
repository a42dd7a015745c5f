import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  BLOCK_BYTES,
  blockCount,
  blockLength,
  blocksOf,
  BLOCKS_PER_CHUNK,
  bytesOf,
  CHUNK_BYTES,
  chunkCount,
} from '../../src/core/index.ts'

const size = fc.integer({ min: 1, max: 2 ** 40 })

test('a chunk is 4 MiB of 16 blocks of 256 KiB', () => {
  assert.equal(BLOCK_BYTES, 262_144)
  assert.equal(BLOCKS_PER_CHUNK, 16)
  assert.equal(CHUNK_BYTES, 4_194_304)
})

test('an empty blob has no block, one byte has one, and a byte more than a block has two', () => {
  assert.deepEqual([0, 1, BLOCK_BYTES, BLOCK_BYTES + 1].map(blockCount), [0, 1, 1, 2])
  assert.deepEqual([0, 1, CHUNK_BYTES, CHUNK_BYTES + 1].map(chunkCount), [0, 1, 1, 2])
})

test('the blocks of a range hold the range, and neither the first nor the last of them is needless', () => {
  const ranges = size.chain(total => fc.tuple(fc.constant(total), fc.nat(total - 1), fc.nat(total - 1)))
  fc.assert(
    fc.property(ranges, ([total, a, b]) => {
      const range = { start: Math.min(a, b), end: Math.max(a, b) + 1 }
      const run = blocksOf(range)
      const bytes = bytesOf(run, total)
      assert.ok(bytes.start <= range.start && bytes.end >= range.end && bytes.end <= total)
      assert.ok(range.start < (run.first + 1) * BLOCK_BYTES)
      assert.ok(range.end > (run.end - 1) * BLOCK_BYTES)
    }),
  )
})

test('an empty range needs no block, wherever it is', () => {
  for (const at of [0, 1, BLOCK_BYTES, BLOCK_BYTES * 3 + 5]) {
    const run = blocksOf({ start: at, end: at })
    assert.equal(run.end - run.first, 0)
    assert.equal(run.first, Math.floor(at / BLOCK_BYTES))
  }
})

test('the whole blob is all of its blocks, and their lengths add up to its size', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 50 * BLOCK_BYTES }), total => {
      const run = blocksOf({ start: 0, end: total })
      assert.deepEqual(run, { first: 0, end: blockCount(total) })
      assert.deepEqual(bytesOf(run, total), { start: 0, end: total })
      const lengths = Array.from({ length: run.end }, (_, block) => blockLength(block, total))
      assert.equal(
        lengths.reduce((sum, length) => sum + length, 0),
        total,
      )
      assert.ok(lengths.every(length => length > 0))
    }),
  )
})

test('blocks beyond 4 GiB are where they belong', () => {
  const start = 2 ** 35 + BLOCK_BYTES + 1
  assert.deepEqual(blocksOf({ start, end: start + 1 }), { first: 2 ** 17 + 1, end: 2 ** 17 + 2 })
})
