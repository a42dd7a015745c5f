import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { MAX_READ_AHEAD_BYTES, ReadAhead } from '../../src/blobs/read-ahead.ts'

const MIB = 1024 * 1024

describe('ReadAhead', () => {
  test('a first range and a random one are worth nothing more than themselves', () => {
    const readAhead = new ReadAhead()
    assert.equal(readAhead.observe({ start: 0, end: MIB }), 0)
    assert.equal(readAhead.observe({ start: 50 * MIB, end: 51 * MIB }), 0)
    assert.equal(readAhead.observe({ start: 20 * MIB, end: 21 * MIB }), 0)
  })

  test('a sequential reader gets its own length ahead, then twice as much each time, up to 8 MiB', () => {
    const readAhead = new ReadAhead()
    const ahead = Array.from({ length: 6 }, (_, index) =>
      readAhead.observe({ start: index * MIB, end: (index + 1) * MIB }),
    )
    assert.deepEqual(ahead, [0, MIB, 2 * MIB, 4 * MIB, 8 * MIB, MAX_READ_AHEAD_BYTES])
  })

  test('ranges that were read ahead are hits that nobody reports, and the next miss is still sequential', () => {
    const readAhead = new ReadAhead()
    readAhead.observe({ start: 0, end: MIB })
    assert.equal(readAhead.observe({ start: MIB, end: 2 * MIB }), MIB)
    assert.equal(readAhead.observe({ start: 3 * MIB, end: 4 * MIB }), 2 * MIB)
    assert.equal(readAhead.observe({ start: 6 * MIB, end: 7 * MIB }), 4 * MIB)
  })

  test('two sequential readers of one blob are told apart', () => {
    const readAhead = new ReadAhead()
    for (let index = 0; index < 3; index += 1) {
      const first = readAhead.observe({ start: index * MIB, end: (index + 1) * MIB })
      const second = readAhead.observe({ start: (100 + index) * MIB, end: (101 + index) * MIB })
      assert.equal(first, second)
      assert.equal(first > 0, index > 0)
    }
  })

  test('going back is not sequential', () => {
    const readAhead = new ReadAhead()
    readAhead.observe({ start: MIB, end: 2 * MIB })
    assert.equal(readAhead.observe({ start: 0, end: MIB }), 0)
  })
})
