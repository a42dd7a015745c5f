import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { backoffDelay, parseRetryAfter } from '../../src/core/index.ts'

const NOW = Date.UTC(2024, 0, 1, 12, 0, 0)

test('a delay is never negative, never above the cap, and never above the doubled base', () => {
  fc.assert(
    fc.property(
      fc.nat(2000),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      fc.integer({ min: 1, max: 1000 }),
      fc.integer({ min: 1, max: 60_000 }),
      (attempt, random, baseMs, maxMs) => {
        const delay = backoffDelay(attempt, random, { baseMs, maxMs })
        assert.ok(Number.isInteger(delay) && delay >= 0 && delay < Math.min(maxMs, baseMs * 2 ** attempt))
      },
    ),
  )
})

test('with the worst luck the delay doubles up to the cap', () => {
  const delays = [0, 1, 2, 3, 4].map(attempt => backoffDelay(attempt, 0.999_999, { baseMs: 100, maxMs: 500 }))
  assert.deepEqual(delays, [99, 199, 399, 499, 499])
})

test('Retry-After in seconds', () => {
  assert.equal(parseRetryAfter('0', NOW), 0)
  assert.equal(parseRetryAfter(' 120 ', NOW), 120_000)
})

test('Retry-After as a date is a time from now, and none when it has passed', () => {
  assert.equal(parseRetryAfter('Mon, 01 Jan 2024 12:00:30 GMT', NOW), 30_000)
  assert.equal(parseRetryAfter('Mon, 01 Jan 2024 11:00:00 GMT', NOW), 0)
})

test('Retry-After that is absent or unreadable is no delay', () => {
  for (const header of [undefined, '', 'soon', '1e99x']) assert.equal(parseRetryAfter(header, NOW), undefined)
})

test('what is neither whole seconds nor a date says nothing', () => {
  for (const header of ['-1', '1.5', '', '12/24/2024', 'soon', '1e3']) {
    assert.equal(parseRetryAfter(header, NOW), undefined, header)
  }
})
