import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Registry } from 'prom-client'
import { ShoalError, type ErrorCode } from '../../../src/core/index.ts'
import { createUpstreamMetrics } from '../../../src/upstream/metrics.ts'
import { Retries } from '../../../src/upstream/registry/retry.ts'
import { metric, TestClock } from '../rig.ts'

function make(retries = 3): { retries: Retries; clock: TestClock; metrics: Registry } {
  const clock = new TestClock()
  const metrics = new Registry()
  return { clock, metrics, retries: new Retries({ clock, metrics: createUpstreamMetrics(metrics) }, { retries }) }
}

function failure(code: ErrorCode, details: Record<string, unknown> = {}): ShoalError {
  return new ShoalError(code, 'failed', { details })
}

test('transient failures are tried again so many times, with growing random pauses', async () => {
  const transient = [
    failure('ERR_UPSTREAM_TIMEOUT'),
    failure('ERR_UPSTREAM_TRANSPORT', { cause: 'ECONNRESET' }),
    failure('ERR_UPSTREAM_STATUS', { status: 503 }),
    failure('ERR_UPSTREAM_STATUS', { status: 429 }),
    failure('ERR_UPSTREAM_BODY', { truncated: true }),
  ]
  for (const error of transient) {
    const { clock, retries } = make(3)
    let attempts = 0
    const attempt = (): Promise<void> => {
      attempts += 1
      return Promise.reject(error)
    }
    await assert.rejects(retries.run(attempt), thrown => thrown === error)
    assert.equal(attempts, 4)
    assert.deepEqual(clock.sleeps, [50, 100, 200])
  }
})

test('what would fail again in the same way is not tried again', async () => {
  const lasting = [
    failure('ERR_UPSTREAM_AUTH', { status: 401 }),
    failure('ERR_UPSTREAM_STATUS', { status: 400 }),
    failure('ERR_UPSTREAM_STATUS', { status: 501 }),
    failure('ERR_UPSTREAM_BODY'),
    failure('ERR_UPSTREAM_TRANSPORT', { cause: 'CERT_HAS_EXPIRED' }),
    failure('ERR_UPSTREAM_TRANSPORT', { cause: 'SELF_SIGNED_CERT_IN_CHAIN' }),
    failure('ERR_DIGEST_MISMATCH'),
    new Error('not ours'),
  ]
  for (const error of lasting) {
    const { clock, retries } = make()
    await assert.rejects(
      retries.run(() => Promise.reject(error)),
      thrown => thrown === error,
    )
    assert.deepEqual(clock.sleeps, [])
  }
})

test('Retry-After is waited for, as long as it is ten seconds in all', async () => {
  const { clock, retries } = make(5)
  const asked = ['4', '5', '2']
  const attempt = (): Promise<void> =>
    Promise.reject(failure('ERR_UPSTREAM_STATUS', { status: 429, retryAfter: asked.shift() }))
  await assert.rejects(
    retries.run(attempt),
    (error: unknown) => error instanceof ShoalError && error.details['retryAfter'] === '2',
  )
  assert.deepEqual(clock.sleeps, [4_050, 5_100])
})

test('a Retry-After beyond the limit is passed up at once', async () => {
  const { clock, retries } = make()
  const error = failure('ERR_UPSTREAM_STATUS', { status: 429, retryAfter: '3600' })
  await assert.rejects(
    retries.run(() => Promise.reject(error)),
    thrown => thrown === error,
  )
  assert.deepEqual(clock.sleeps, [])
})

test('a body that got on by a mebibyte has its attempts back', async () => {
  const { retries } = make(1)
  const error = failure('ERR_UPSTREAM_TRANSPORT')
  await retries.pause(error)
  retries.received(1024 * 1024 - 1)
  await assert.rejects(retries.pause(error), thrown => thrown === error)
  retries.received(1)
  await retries.pause(error)
  await assert.rejects(retries.pause(error), thrown => thrown === error)
})

test('an abort ends the waiting with its reason', async () => {
  const { clock, retries } = make()
  const controller = new AbortController()
  const reason = new Error('left')
  clock.onSleep = () => controller.abort(reason)
  const { signal } = controller
  const error = failure('ERR_UPSTREAM_TIMEOUT')
  await assert.rejects(
    retries.run(() => Promise.reject(error), { signal }),
    thrown => thrown === reason,
  )
})

test('retries are counted by cause', async () => {
  const { metrics, retries } = make()
  await retries.pause(failure('ERR_UPSTREAM_STATUS', { status: 500 }))
  await retries.pause(failure('ERR_UPSTREAM_STATUS', { status: 429 }))
  await retries.pause(failure('ERR_UPSTREAM_BODY', { truncated: true }))
  for (const cause of ['status', 'throttled', 'body'])
    assert.equal(await metric(metrics, 'shoal_upstream_retries_total', { cause }), 1)
})
