import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { raceAbort, ShoalError } from '../../../src/core/index.ts'
import { MirrorHealth, type HealthOptions } from '../../../src/upstream/mirrors/health.ts'
import type { MirrorFailureKind } from '../../../src/upstream/mirrors/outcomes.ts'
import type { MirrorStatus } from '../../../src/upstream/mirrors/state.ts'
import { ManualClock } from '../../store/harness.ts'

const REFUSED = new ShoalError('ERR_UPSTREAM_TRANSPORT', 'mirror:5000 could not be talked to (ECONNREFUSED)')
const SILENT = new ShoalError('ERR_UPSTREAM_TIMEOUT', 'mirror:5000 did not answer a ping within 5000 ms')
const OPTIONS: HealthOptions = { healthCheckIntervalMs: 5_000, failureLimit: 3, healthCheckPauseElapsedMs: 60_000 }

/** Lets everything that is already decided happen. */
const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

/** A mirror's health whose pings the test answers. */
class HealthRig {
  readonly clock = new ManualClock()
  readonly health: MirrorHealth
  readonly counted: MirrorFailureKind[] = []
  readonly statuses: MirrorStatus[] = []
  pings = 0
  #answer: ((failure: Error | undefined) => void) | undefined

  constructor(options: Partial<HealthOptions> = {}) {
    this.health = new MirrorHealth(
      {
        clock: this.clock,
        ping: signal => this.#ping(signal),
        onCounted: kind => this.counted.push(kind),
        onChange: status => this.statuses.push(status),
      },
      { ...OPTIONS, ...options },
    )
  }

  get isPinging(): boolean {
    return this.#answer !== undefined
  }

  fail(): void {
    this.health.failed(REFUSED, 'transport')
  }

  /** The ping under way ends: answered, or with `failure`. */
  async answer(failure?: Error): Promise<void> {
    assert.ok(this.#answer !== undefined, 'a ping is under way')
    this.#answer(failure)
    await settle()
  }

  async advance(ms: number): Promise<void> {
    this.clock.advance(ms)
    await settle()
  }

  async #ping(signal: AbortSignal): Promise<void> {
    assert.equal(this.#answer, undefined, 'one ping at a time')
    this.pings += 1
    try {
      const answered = new Promise<void>((resolve, reject) => {
        this.#answer = failure => (failure === undefined ? resolve() : reject(failure))
      })
      await raceAbort(answered, signal)
    } finally {
      this.#answer = undefined
    }
  }
}

test('a healthy mirror is used and never pinged', async () => {
  const rig = new HealthRig()
  await rig.advance(1_000_000)
  assert.equal(rig.health.isUsable, true)
  assert.equal(rig.pings, 0)
  assert.equal(rig.clock.sleeping, 0)
  assert.deepEqual(rig.health.state(), {
    status: 'healthy',
    failures: 0,
    failureLimit: 3,
    since: rig.clock.now() - 1_000_000,
  })
})

test('a failure makes it a suspect that is pinged at once, and an answer brings it back with its count kept', async () => {
  const rig = new HealthRig()
  await rig.advance(100)
  rig.fail()
  assert.equal(rig.health.isUsable, false)
  assert.equal(rig.isPinging, true)
  assert.deepEqual(rig.health.state(), {
    status: 'suspect',
    failures: 1,
    failureLimit: 3,
    since: rig.clock.now(),
    lastError: REFUSED.message,
  })
  await rig.answer()
  assert.deepEqual(rig.statuses, ['suspect', 'healthy'])
  assert.equal(rig.health.state().failures, 1)
  assert.equal(rig.clock.sleeping, 0)
})

test('what fails while it is not healthy anyway counts once', async () => {
  const rig = new HealthRig()
  for (let request = 0; request < 8; request += 1) rig.fail()
  assert.deepEqual(rig.counted, ['transport'])
  assert.equal(rig.health.status, 'suspect')
  await rig.answer()
  rig.fail()
  assert.equal(rig.health.state().failures, 2)
  rig.health.close()
})

test('the failure that reaches the limit makes it down, and it is not pinged before an interval has passed', async () => {
  const rig = new HealthRig({ failureLimit: 2 })
  rig.fail()
  await rig.answer()
  rig.fail()
  assert.equal(rig.health.status, 'down')
  await rig.advance(4_999)
  assert.equal(rig.pings, 1)
  await rig.advance(1)
  assert.equal(rig.pings, 2)
  await rig.answer()
  assert.equal(rig.health.isUsable, true)
  assert.equal(rig.health.state().failures, 0, 'it begins anew')
})

test('failed pings of a suspect count, are repeated after the interval, and make it down in the end', async () => {
  const rig = new HealthRig()
  rig.fail()
  await rig.answer(SILENT)
  assert.equal(rig.health.status, 'suspect')
  assert.equal(rig.health.state().lastError, SILENT.message)
  await rig.advance(4_999)
  assert.equal(rig.isPinging, false)
  await rig.advance(1)
  await rig.answer(SILENT)
  assert.equal(rig.health.status, 'down')
  assert.deepEqual(rig.counted, ['transport', 'ping', 'ping'])
  for (let round = 0; round < 10; round += 1) {
    await rig.advance(5_000)
    await rig.answer(REFUSED)
    rig.health.wanted()
  }
  assert.equal(rig.health.state().failures, 3, 'nothing counts against one that is down')
  assert.equal(rig.health.state().lastError, REFUSED.message)
  await rig.advance(5_000)
  await rig.answer()
  assert.deepEqual(rig.statuses, ['suspect', 'down', 'healthy'])
})

test('with a limit of one the first failure makes it down', async () => {
  const rig = new HealthRig({ failureLimit: 1 })
  rig.fail()
  assert.equal(rig.health.status, 'down')
  assert.equal(rig.isPinging, false)
  await rig.advance(5_000)
  await rig.answer()
  assert.equal(rig.health.isUsable, true)
})

test('pings pause when nobody wants it, and the next wish resumes them at once', async () => {
  const rig = new HealthRig({ healthCheckPauseElapsedMs: 12_000 })
  rig.fail()
  await rig.answer(REFUSED)
  await rig.advance(5_000)
  await rig.answer(REFUSED)
  assert.equal(rig.health.status, 'down')
  await rig.advance(5_000)
  await rig.answer(REFUSED)
  await rig.advance(5_000)
  assert.equal(rig.health.status, 'paused')
  assert.equal(rig.health.state().since, rig.clock.now())
  assert.equal(rig.clock.sleeping, 0)
  await rig.advance(10_000_000)
  assert.equal(rig.pings, 3)
  rig.health.wanted()
  await settle()
  assert.equal(rig.isPinging, true)
  assert.equal(rig.health.status, 'down')
  await rig.answer()
  assert.deepEqual(rig.statuses, ['suspect', 'down', 'paused', 'down', 'healthy'])
})

test('a wish in time keeps the pings going', async () => {
  const rig = new HealthRig({ healthCheckPauseElapsedMs: 12_000, failureLimit: 1 })
  rig.fail()
  for (let round = 0; round < 10; round += 1) {
    await rig.advance(5_000)
    await rig.answer(REFUSED)
    rig.health.wanted()
  }
  assert.equal(rig.health.status, 'down')
  rig.health.close()
})

test('a body that fails long after it was asked for does not find the pings paused', async () => {
  const rig = new HealthRig({ healthCheckPauseElapsedMs: 12_000 })
  rig.health.wanted()
  await rig.advance(1_000_000)
  rig.fail()
  assert.equal(rig.health.status, 'suspect')
  assert.equal(rig.isPinging, true)
  rig.health.close()
})

test('close ends the ping, the timer and the pause, and nothing counts afterwards', async () => {
  const pinging = new HealthRig()
  pinging.fail()
  pinging.health.close()
  await settle()
  assert.equal(pinging.isPinging, false)
  assert.equal(pinging.health.status, 'suspect')

  const waiting = new HealthRig({ failureLimit: 1 })
  waiting.fail()
  assert.equal(waiting.clock.sleeping, 1)
  waiting.health.close()
  waiting.health.close()
  await settle()
  assert.equal(waiting.clock.sleeping, 0)

  const paused = new HealthRig({ failureLimit: 1, healthCheckPauseElapsedMs: 1_000 })
  paused.fail()
  await paused.advance(5_000)
  assert.equal(paused.health.status, 'paused')
  paused.health.close()
  paused.health.wanted()
  await settle()
  assert.equal(paused.pings, 0)

  const closed = new HealthRig()
  closed.health.close()
  closed.fail()
  await settle()
  assert.deepEqual(closed.counted, [])
  assert.equal(closed.pings, 0)
})

type Event = 'fail' | 'wanted' | 'answered' | 'unanswered' | 'short' | 'interval' | 'idle'

test('whatever happens in whatever order, the rules hold', async () => {
  const events = fc.array(
    fc.constantFrom<Event>('fail', 'wanted', 'answered', 'unanswered', 'short', 'interval', 'idle'),
    { maxLength: 60 },
  )
  await fc.assert(
    fc.asyncProperty(events, fc.integer({ min: 1, max: 5 }), async (sequence, failureLimit) => {
      const rig = new HealthRig({ failureLimit })
      const { clock, health } = rig
      for (const event of sequence) {
        const before = { pings: rig.pings, ...health.state() }
        await happen(rig, event)
        const state = health.state()
        assert.equal(health.isUsable, state.status === 'healthy')
        assert.ok(state.failures >= 0 && state.failures <= failureLimit)
        if (state.status === 'suspect') assert.ok(state.failures > 0 && state.failures < failureLimit)
        if (state.status === 'down') assert.equal(state.failures, failureLimit)
        const timers = clock.sleeping
        assert.equal(timers + Number(rig.isPinging), state.status === 'healthy' || state.status === 'paused' ? 0 : 1)
        if (before.status === 'healthy' && event !== 'fail') assert.equal(state.status, 'healthy')
        if (before.status !== 'healthy' && event !== 'answered') assert.notEqual(state.status, 'healthy')
        if (before.status === 'healthy' && state.status !== 'suspect') assert.equal(rig.pings, before.pings)
        if (before.status === 'paused' && event !== 'wanted') assert.equal(rig.pings, before.pings)
      }
      health.close()
      await settle()
      assert.equal(clock.sleeping + Number(rig.isPinging), 0)
    }),
    { numRuns: 150 },
  )
})

async function happen(rig: HealthRig, event: Event): Promise<void> {
  switch (event) {
    case 'fail':
      rig.fail()
      break
    case 'wanted':
      rig.health.wanted()
      break
    case 'answered':
    case 'unanswered':
      if (rig.isPinging) await rig.answer(event === 'answered' ? undefined : SILENT)
      break
    case 'short':
      rig.clock.advance(1_000)
      break
    case 'interval':
      rig.clock.advance(OPTIONS.healthCheckIntervalMs)
      break
    case 'idle':
      rig.clock.advance(OPTIONS.healthCheckPauseElapsedMs)
      break
  }
  await settle()
}
