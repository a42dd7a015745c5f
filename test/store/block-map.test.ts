import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { BLOCK_BYTES, BLOCKS_PER_CHUNK, CHUNK_BYTES } from '../../src/core/index.ts'
import { BlockMap, WINDOW_CHUNKS, type ChunkRow } from '../../src/store/block-map.ts'

const GIB = 1024 ** 3

test('rows give back the map they were made from', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.nat(63), { maxLength: 64 }),
      fc.array(fc.nat(0xffffffff), { minLength: 64, maxLength: 64 }),
      (blocks, crcs) => {
        const size = 64 * BLOCK_BYTES - 1
        const map = new BlockMap(size, () => [])
        map.readyAll().catch(() => assert.fail())
        for (const block of blocks) map.put(block, crcs[block]!, block + 1)
        const rows = [0, 1, 2, 3].map(chunk => map.row(chunk))
        const copy = new BlockMap(size, (first, end) => rows.filter(({ index }) => index >= first && index < end))
        for (let block = 0; block < 64; block += 1) {
          assert.equal(copy.has(block), blocks.includes(block))
          assert.equal(copy.isChecked(block), false)
          assert.equal(copy.crc(block), blocks.includes(block) ? crcs[block] : 0)
          assert.equal(copy.source(block), blocks.includes(block) ? block + 1 : 0)
        }
      },
    ),
  )
})

test('present and missing runs are merged and together are the run asked for', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(39)), fc.nat(45), fc.nat(45), (blocks, a, b) => {
      const map = new BlockMap(40 * BLOCK_BYTES, () => [])
      for (const block of blocks) if (!map.has(block)) map.put(block, 1, 1)
      const run = { first: Math.min(a, b), end: Math.max(a, b) }
      const missing = map.missing(run)
      const runs = [...missing, ...map.present(run)].toSorted((x, y) => x.first - y.first)
      let at = run.first
      for (const { first, end } of runs) {
        assert.equal(first, at)
        assert.ok(end > first)
        at = end
      }
      if (run.first < 40) assert.equal(at, Math.min(run.end, 40))
      for (const { first, end } of missing) {
        for (let block = first; block < end; block += 1) assert.ok(!blocks.includes(block))
      }
      for (let i = 1; i < missing.length; i += 1) assert.ok(missing[i]!.first > missing[i - 1]!.end)
    }),
  )
})

test('rows are read in windows, only those asked for, and once', () => {
  const asked: number[] = []
  const map = new BlockMap(8 * GIB, (first, end) => {
    asked.push(first)
    assert.equal(end - first, WINDOW_CHUNKS)
    return []
  })
  assert.deepEqual(asked, [])
  assert.equal(map.has(0), false)
  assert.equal(map.has(100), false)
  assert.equal(map.has(8 * 4096 - 1), false)
  assert.deepEqual(asked, [0, 7 * WINDOW_CHUNKS])
})

test('an index that cannot be read makes blocks absent until it can', () => {
  let broken = true
  const row: ChunkRow = { index: 0, mask: 1, crcs: Buffer.alloc(64, 7), sources: Buffer.alloc(32, 1) }
  const map = new BlockMap(CHUNK_BYTES, () => (broken ? undefined : [row]))
  assert.equal(map.ready(0), false)
  assert.equal(map.has(0), false)
  broken = false
  assert.equal(map.has(0), true)
  assert.equal(map.crc(0), 0x07070707)
})

test('a dropped block is neither present nor checked, and counts', () => {
  const map = new BlockMap(CHUNK_BYTES, () => [])
  assert.equal(map.drop(3), false)
  map.put(3, 5, 1)
  assert.equal(map.isChecked(3), true)
  assert.equal(map.drop(3), true)
  assert.deepEqual([map.has(3), map.isChecked(3), map.crc(3), map.drops], [false, false, 0, 1])
})

test('a row that is too short, or names blocks beyond the blob, adds nothing', () => {
  const short: ChunkRow = { index: 0, mask: 0xffff, crcs: Buffer.alloc(4), sources: Buffer.alloc(2) }
  const map = new BlockMap(2 * BLOCK_BYTES, () => [short])
  assert.deepEqual(map.present({ first: 0, end: BLOCKS_PER_CHUNK }), [{ first: 0, end: 1 }])
  const beyond: ChunkRow = { index: 0, mask: 0xffff, crcs: Buffer.alloc(64), sources: Buffer.alloc(32) }
  const small = new BlockMap(2 * BLOCK_BYTES, () => [beyond])
  assert.deepEqual(small.present({ first: 0, end: BLOCKS_PER_CHUNK }), [{ first: 0, end: 2 }])
})

test('presence and checks lie in one shared buffer, 32-bit words, presence first', () => {
  const map = new BlockMap(64 * BLOCK_BYTES, () => [])
  map.put(33, 1, 1)
  map.put(0, 1, 1)
  map.clearChecked(0)
  assert.deepEqual([...new Uint32Array(map.shared)], [1, 2, 0, 2])
})
