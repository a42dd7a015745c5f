import assert from 'node:assert/strict'
import { test } from 'node:test'
import { raceAbort, ShoalError } from '../../../src/core/index.ts'
import { StallWatch } from '../../../src/upstream/mirrors/stall-watch.ts'
import { ManualClock } from '../../store/harness.ts'

/** Lets everything that is already decided happen. */
const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

class WatchRig {
  readonly clock = new ManualClock()
  readonly watch: StallWatch
  readonly timeouts: number[] = []
  hung = 0
  #answer: ((isAlive: boolean) => void) | undefined

  constructor() {
    this.watch = new StallWatch({
      clock: this.clock,
      ping: ({ signal, timeoutMs }) => {
        this.timeouts.push(timeoutMs)
        const answered = new Promise<void>((resolve, reject) => {
          this.#answer = isAlive =>
            isAlive ? resolve() : reject(new ShoalError('ERR_UPSTREAM_TIMEOUT', 'no answer to a ping'))
        })
        return raceAbort(answered, signal)
      },
      onHung: () => (this.hung += 1),
    })
  }

  get pings(): number {
    return this.timeouts.length
  }

  async answer(isAlive: boolean): Promise<void> {
    this.#answer?.(isAlive)
    await settle()
  }

  async advance(ms: number): Promise<void> {
    this.clock.advance(ms)
    await settle()
  }
}

test('nobody waits: no timer, no ping', async () => {
  const rig = new WatchRig()
  await rig.advance(10_000)
  assert.equal(rig.clock.sleeping, 0)
  const wait = rig.watch.begin()
  assert.equal(rig.clock.sleeping, 1)
  rig.watch.end(wait)
  await rig.advance(1_000)
  assert.equal(rig.clock.sleeping, 0)
  assert.equal(rig.pings, 0)
})

test('a wait of a second causes a ping of a second, and without an answer the host hangs', async () => {
  const rig = new WatchRig()
  const wait = rig.watch.begin()
  await rig.advance(999)
  assert.equal(rig.pings, 0)
  await rig.advance(1)
  assert.deepEqual(rig.timeouts, [1_000])
  await rig.answer(false)
  assert.equal(rig.hung, 1)
  rig.watch.end(wait)
  await rig.advance(1_000)
  assert.equal(rig.clock.sleeping, 0)
})

test('a slow host that answers its pings gets one a second, however many wait', async () => {
  const rig = new WatchRig()
  const waits = Array.from({ length: 10 }, () => rig.watch.begin())
  for (let second = 1; second <= 5; second += 1) {
    await rig.advance(1_000)
    assert.equal(rig.pings, second)
    assert.equal(rig.clock.sleeping, 0)
    await rig.answer(true)
    assert.equal(rig.clock.sleeping, 1)
  }
  assert.equal(rig.hung, 0)
  for (const wait of waits) rig.watch.end(wait)
})

test('short waits one after the other are no stall', async () => {
  const rig = new WatchRig()
  for (let piece = 0; piece < 100; piece += 1) {
    const wait = rig.watch.begin()
    await rig.advance(100)
    rig.watch.end(wait)
  }
  assert.equal(rig.pings, 0)
})

test('a host that sends what was waited for is alive, whatever became of the ping', async () => {
  const rig = new WatchRig()
  const wait = rig.watch.begin()
  await rig.advance(1_000)
  rig.watch.end(wait)
  await rig.answer(false)
  assert.equal(rig.hung, 0)
})

test('close ends the ping and the timer, and waits that come later are not watched', async () => {
  const rig = new WatchRig()
  rig.watch.begin()
  await rig.advance(1_000)
  assert.equal(rig.pings, 1)
  rig.watch.close()
  rig.watch.close()
  await settle()
  rig.watch.begin()
  await rig.advance(10_000)
  assert.deepEqual([rig.pings, rig.hung, rig.clock.sleeping], [1, 0, 0])

  const sleeping = new WatchRig()
  sleeping.watch.begin()
  assert.equal(sleeping.clock.sleeping, 1)
  sleeping.watch.close()
  assert.equal(sleeping.clock.sleeping, 0)
})

test('a host that sends something to others does not hang, however slow it is with one of them and with pings', async () => {
  const rig = new WatchRig()
  const stuck = rig.watch.begin()
  await rig.advance(1_000)
  const other = rig.watch.begin()
  rig.watch.heard()
  rig.watch.end(other)
  await rig.answer(false)
  assert.equal(rig.hung, 0)
  await rig.advance(1_000)
  assert.equal(rig.pings, 2)
  await rig.answer(false)
  assert.equal(rig.hung, 1, 'it sends nothing any longer')
  rig.watch.end(stuck)
})
