import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Parallelism } from '../../src/blobs/parallelism.ts'
import { CHUNK_BYTES } from '../../src/core/index.ts'

/** Feeds ten-millisecond pieces at the rate that `rate` gives for the connections in use. Rates are in bytes per millisecond. */
function feed(parallelism: Parallelism, rate: (connections: number) => number, milliseconds: number, from = 0): number {
  let now = from
  for (; now < from + milliseconds; now += 10) {
    const busy = parallelism.connections
    parallelism.received(rate(busy) * 10, now, busy, true)
  }
  return now
}

describe('Parallelism', () => {
  test('an origin that gives so much per connection ends with eight of them', () => {
    const parallelism = new Parallelism()
    feed(parallelism, connections => connections * 40_000, 1000)
    assert.equal(parallelism.connections, 8)
  })

  test('an origin whose link is the bound ends with one, and is not tried again at once', () => {
    const parallelism = new Parallelism()
    const now = feed(parallelism, () => 600_000, 1000)
    assert.equal(parallelism.connections, 1)
    feed(parallelism, connections => connections * 600_000, 1000, now)
    assert.equal(parallelism.connections, 1)
  })

  test('what was refused once is tried again after a while', () => {
    const parallelism = new Parallelism()
    const now = feed(parallelism, () => 600_000, 1000)
    feed(parallelism, connections => connections * 40_000, 1000, now + 60_000)
    assert.equal(parallelism.connections, 8)
  })

  test('it stops climbing where more connections bring less than a quarter', () => {
    const parallelism = new Parallelism()
    feed(parallelism, connections => Math.min(connections, 2) * 40_000, 1000)
    assert.equal(parallelism.connections, 2)
  })

  test('a reader that is slower than the source teaches nothing', () => {
    const parallelism = new Parallelism()
    for (let now = 0; now < 5000; now += 10) parallelism.received(100_000, now, 1, false)
    assert.equal(parallelism.connections, 1)
  })

  test('a segment keeps its connection busy for a quarter of a second, within one and eight chunks', () => {
    const slow = new Parallelism()
    feed(slow, () => 1000, 100)
    assert.equal(slow.segmentBytes, CHUNK_BYTES)
    const fast = new Parallelism()
    feed(fast, () => 2_000_000, 100)
    assert.equal(fast.segmentBytes, 8 * CHUNK_BYTES)
    const middle = new Parallelism()
    feed(middle, connections => connections * 40_000, 100)
    assert.equal(middle.segmentBytes % CHUNK_BYTES, 0)
    assert.ok(middle.segmentBytes > CHUNK_BYTES)
  })
})
