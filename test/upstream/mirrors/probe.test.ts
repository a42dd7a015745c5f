import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Registry } from 'prom-client'
import { createMirrorMetrics } from '../../../src/upstream/mirrors/metrics.ts'
import { Probe, type Ping } from '../../../src/upstream/mirrors/probe.ts'
import { ManualClock } from '../../store/harness.ts'
import { metric } from '../rig.ts'

function probeRig(ping: Ping) {
  const clock = new ManualClock()
  const registry = new Registry()
  const probe = new Probe(
    { clock, metrics: createMirrorMetrics(registry), ping },
    { host: 'mirror:5000', isAlive: status => status < 500 },
  )
  const pings = (outcome: string): Promise<number> => metric(registry, 'shoal_mirror_pings_total', { outcome })
  return { clock, probe, pings }
}

const NEVER: Ping = ({ signal }) =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
const signal = new AbortController().signal

test('an answer that says alive is an answer, and leaves no timer', async () => {
  const { clock, pings, probe } = probeRig(() => Promise.resolve(401))
  assert.equal(probe.last, undefined)
  await probe.run({ timeoutMs: 1_000, signal })
  assert.deepEqual(probe.last, { at: clock.now(), outcome: 'answered' })
  assert.equal(await pings('answered'), 1)
  assert.equal(clock.sleeping, 0)
})

test('an answer that says otherwise is none', async () => {
  const { pings, probe } = probeRig(() => Promise.resolve(502))
  await assert.rejects(probe.run({ timeoutMs: 1_000, signal }), { code: 'ERR_UPSTREAM_STATUS' })
  assert.equal(probe.last?.outcome, 'failed')
  assert.equal(await pings('failed'), 1)
})

test('no connection is a failure, whatever the client calls it', async () => {
  const { probe } = probeRig(() => Promise.reject(Object.assign(new Error('connect'), { code: 'ECONNREFUSED' })))
  await assert.rejects(probe.run({ timeoutMs: 1_000, signal }), {
    code: 'ERR_UPSTREAM_TRANSPORT',
    message: 'mirror:5000 could not be talked to (ECONNREFUSED)',
  })
  assert.equal(probe.last?.outcome, 'failed')
})

test('no answer in time is a timeout, and nobody is given more than five seconds', async () => {
  for (const [timeoutMs, given] of [
    [1_000, 1_000],
    [60_000, 5_000],
  ] as const) {
    const { clock, pings, probe } = probeRig(NEVER)
    const running = assert.rejects(probe.run({ timeoutMs, signal }), { code: 'ERR_UPSTREAM_TIMEOUT' })
    clock.advance(given - 1)
    assert.equal(clock.sleeping, 1)
    clock.advance(1)
    await running
    assert.equal(probe.last?.outcome, 'timeout')
    assert.equal(await pings('timeout'), 1)
  }
})

test('a ping that is aborted throws the reason and says nothing of the host', async () => {
  const { clock, probe } = probeRig(NEVER)
  const controller = new AbortController()
  const reason = new Error('closing')
  const running = assert.rejects(
    probe.run({ timeoutMs: 1_000, signal: controller.signal }),
    thrown => thrown === reason,
  )
  controller.abort(reason)
  await running
  await assert.rejects(probe.run({ timeoutMs: 1_000, signal: controller.signal }), thrown => thrown === reason)
  assert.equal(probe.last, undefined)
  assert.equal(clock.sleeping, 0)
})
