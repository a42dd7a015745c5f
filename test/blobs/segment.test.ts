import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { FlyingBlocks } from '../../src/blobs/flying-blocks.ts'
import { Segment } from '../../src/blobs/segment.ts'
import { BLOCK_BYTES, blockCount, blockLength } from '../../src/core/index.ts'

describe('Segment', () => {
  test('any cut of the stream gives the same blocks', () => {
    const size = 3 * BLOCK_BYTES + 777
    const content = Buffer.alloc(size)
    for (let index = 0; index < size; index += 4) content.writeUInt16LE(index % 65_521, Math.min(index, size - 2))
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 2 * BLOCK_BYTES }), { maxLength: 30 }), cuts => {
        const segment = new Segment({ first: 0, end: blockCount(size) }, size, {})
        const flying = new FlyingBlocks({ isWanted: () => true }, { size })
        const whole: number[] = []
        let position = 0
        for (const cut of [...cuts, size]) {
          const piece = content.subarray(position, Math.min(size, position + cut))
          position += piece.length
          whole.push(...segment.take(piece, flying))
        }
        assert.equal(segment.remaining, 0)
        assert.deepEqual(whole, [0, 1, 2, 3])
        for (const block of whole) {
          const entry = flying.get(block)!
          assert.equal(entry.length, blockLength(block, size))
          const start = block * BLOCK_BYTES
          assert.ok(Buffer.concat(entry.pieces).equals(content.subarray(start, start + entry.length)))
        }
      }),
      { numRuns: 50 },
    )
  })

  test('a segment in the middle counts from its own first byte', () => {
    const segment = new Segment({ first: 2, end: 4 }, 10 * BLOCK_BYTES, {})
    assert.equal(segment.position, 2 * BLOCK_BYTES)
    assert.equal(segment.remaining, 2 * BLOCK_BYTES)
    assert.equal(segment.nearlyDone, false)
    segment.take(
      Buffer.alloc(BLOCK_BYTES + BLOCK_BYTES / 2),
      new FlyingBlocks({ isWanted: () => true }, { size: 10 * BLOCK_BYTES }),
    )
    assert.equal(segment.nearlyDone, true)
  })
})
