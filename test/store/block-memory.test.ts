import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { BLOCK_BYTES } from '../../src/core/index.ts'
import { BlockMemory } from '../../src/store/block-memory.ts'
import { contentOf, MIB } from './harness.ts'

test('memory stays below its limit whatever is put in', () => {
  const memory = new BlockMemory(MIB)
  for (let block = 0; block < 20; block += 1) {
    memory.put(1, block, [Buffer.from(contentOf(BLOCK_BYTES))])
    assert.ok(memory.bytes <= MIB)
  }
  assert.ok(memory.copy(1, 19, 0, new Uint8Array(1)))
  assert.ok(!memory.copy(1, 0, 0, new Uint8Array(1)))
})

test('small views of large buffers are copied, so that they do not keep the buffers', () => {
  const memory = new BlockMemory(MIB)
  const slab = Buffer.alloc(8 * MIB, 7)
  memory.put(1, 0, [slab.subarray(0, BLOCK_BYTES)])
  assert.equal(memory.bytes, BLOCK_BYTES)
  slab.fill(0)
  const target = new Uint8Array(2)
  assert.ok(memory.copy(1, 0, 0, target))
  assert.deepEqual([...target], [7, 7])
})

test('any range comes back from any cut into pieces', () => {
  const bytes = contentOf(1000)
  fc.assert(
    fc.property(fc.array(fc.nat(1000), { maxLength: 6 }), fc.nat(999), fc.nat(1000), (cuts, offset, wanted) => {
      const memory = new BlockMemory(MIB)
      const ends = [...cuts, 1000].toSorted((a, b) => a - b)
      // Not Buffer.from(), whose pool would make every small piece a view that is copied.
      const pieces = ends.map((end, i) => Uint8Array.from(bytes.subarray(ends[i - 1] ?? 0, end)))
      memory.put(3, 5, pieces)
      const target = Buffer.alloc(Math.min(wanted, 1000 - offset))
      assert.ok(memory.copy(3, 5, offset, target))
      assert.ok(target.equals(bytes.subarray(offset, offset + target.byteLength)))
    }),
  )
})

test('without room for one block nothing is kept', () => {
  const memory = new BlockMemory(BLOCK_BYTES - 1)
  memory.put(1, 0, [Buffer.alloc(10)])
  assert.ok(!memory.copy(1, 0, 0, new Uint8Array(1)))
})

test('a dropped block is not remembered, its neighbours and other blobs are', () => {
  const memory = new BlockMemory(MIB)
  for (const [blob, block] of [
    [1, 0],
    [1, 1],
    [2, 0],
  ] as const) {
    memory.put(blob, block, [Buffer.alloc(10)])
  }
  memory.drop(1, 0)
  const found = (blob: number, block: number): boolean => memory.copy(blob, block, 0, new Uint8Array(1))
  assert.deepEqual([found(1, 0), found(1, 1), found(2, 0)], [false, true, true])
})
