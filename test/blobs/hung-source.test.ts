import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BLOCK_BYTES, ShoalError, errorCode, systemClock, type BlobSource, type Clock } from '../../src/core/index.ts'
import { bytesOf, digestOf, generatedBlob } from '../support/generated-blob.ts'
import { Rig } from '../support/rig.ts'

const BYTES = bytesOf(generatedBlob(4 * BLOCK_BYTES, 11))
const DIGEST = digestOf(BYTES)

/** A source that hangs from the byte `from` on, as often as `hangs` says. */
function hanging(from: number, hangs: { left: number }): BlobSource {
  return {
    name: 'hanging',
    stat: () => Promise.resolve({ size: BYTES.length }),
    open: (_key, range) => {
      async function* body(): AsyncGenerator<Uint8Array> {
        const stop = hangs.left > 0 ? Math.max(range.start, Math.min(range.end, from)) : range.end
        if (stop > range.start) yield Uint8Array.from(BYTES.subarray(range.start, stop))
        if (stop === range.end) return
        hangs.left -= 1
        await Promise.resolve()
        throw new ShoalError('ERR_UPSTREAM_TIMEOUT', 'host hangs', { details: { hung: true } })
      }
      return Promise.resolve(body())
    },
  }
}

/** Sleeps cost no time, but the clock says they did. */
function quickClock(): Clock & { slept: number } {
  const clock = {
    ...systemClock,
    slept: 0,
    now: () => Date.now() + clock.slept,
    sleep: async (ms: number, options?: { signal?: AbortSignal }) => {
      clock.slept += ms
      await systemClock.sleep(0, options)
    },
  }
  return clock
}

test('a body that has begun waits for a host that hangs, and goes on when it is back', async () => {
  const hangs = { left: 5 }
  const clock = quickClock()
  await using rig = await Rig.open({ clock })
  rig.sources.forBlob = () => [hanging(BLOCK_BYTES, hangs)]
  assert.ok((await rig.read(DIGEST, 0, BYTES.length)).equals(BYTES))
  assert.equal(hangs.left, 0)
  assert.ok(clock.slept >= 5 * 500)
})

test('it does not wait for ever', async () => {
  const clock = quickClock()
  await using rig = await Rig.open({ clock })
  rig.sources.forBlob = () => [hanging(BLOCK_BYTES, { left: Infinity })]
  await assert.rejects(rig.read(DIGEST, 0, BYTES.length), error => errorCode(error) === 'ERR_UPSTREAM_TIMEOUT')
  assert.ok(clock.slept >= 30_000 && clock.slept < 40_000, String(clock.slept))
})

test('who has had nothing yet is told at once', async () => {
  const hangs = { left: Infinity }
  const clock = quickClock()
  await using rig = await Rig.open({ clock })
  rig.sources.forBlob = () => [hanging(0, hangs)]
  await assert.rejects(rig.read(DIGEST, 0, BYTES.length), error => errorCode(error) === 'ERR_UPSTREAM_TIMEOUT')
  assert.ok(clock.slept < 500, String(clock.slept))
})
