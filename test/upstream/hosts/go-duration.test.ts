import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseGoDuration } from '../../../src/upstream/hosts/go-duration.ts'

test('durations are read as Go reads them, in whole milliseconds', () => {
  for (const [text, ms] of [
    ['0', 0],
    ['+0', 0],
    ['0s', 0],
    ['1s', 1000],
    ['200ms', 200],
    ['1h15m30.918s', 4_530_918],
    ['1.5h', 5_400_000],
    ['.5s', 500],
    ['1.s', 1000],
    ['+2m', 120_000],
    ['1m1m', 120_000],
    // Less than a millisecond is still some time.
    ['1ns', 1],
    ['10us', 1],
    ['10µs', 1],
    ['10μs', 1],
    ['1500us', 2],
    ['2000us', 2],
    ['0.1s0.2s', 300],
    ['1.001s', 1001],
  ] as const) {
    assert.equal(parseGoDuration(text), ms, text)
  }
})

test('what Go refuses is refused, and so are times that cannot be waited for', () => {
  for (const text of ['', '1', '30', 's', '1 s', ' 1s', '1d', '-1s', '1s2', '.s', '1e3s', '1S', `${'9'.repeat(30)}h`]) {
    assert.equal(parseGoDuration(text), undefined, text)
  }
})

test('whole units add up', () => {
  fc.assert(
    fc.property(fc.nat(1000), fc.nat(59), fc.nat(59), fc.nat(999), (hours, minutes, seconds, millis) => {
      assert.equal(
        parseGoDuration(`${hours}h${minutes}m${seconds}s${millis}ms`),
        ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis,
      )
    }),
  )
})
