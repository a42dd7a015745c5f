import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '../../src/core/index.ts'

test('the clock tells the time and throws dice', () => {
  assert.ok(Math.abs(systemClock.now() - Date.now()) < 1000)
  const dice = Array.from({ length: 20 }, () => systemClock.random())
  assert.ok(dice.every(value => value >= 0 && value < 1))
  assert.ok(new Set(dice).size > 1)
})

test('sleeping takes at least as long as asked', async () => {
  const started = performance.now()
  await systemClock.sleep(20)
  // Timers count whole milliseconds of their own clock.
  assert.ok(performance.now() - started >= 19)
})

test('a sleep that is aborted rejects with the reason itself', async () => {
  const reason = new Error('enough')
  const controller = new AbortController()
  const sleep = systemClock.sleep(60_000, { signal: controller.signal })
  controller.abort(reason)
  await assert.rejects(sleep, error => error === reason)
  await assert.rejects(systemClock.sleep(60_000, { signal: controller.signal }), error => error === reason)
})
