import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Registry } from 'prom-client'
import { raceAbort, ShoalError } from '../../../src/core/index.ts'
import { watchedRegistry, type Ping } from '../../../src/upstream/mirrors/index.ts'
import { ManualClock } from '../../store/harness.ts'
import { collect, keyOf, TestLog } from '../rig.ts'
import { ClosableFake } from './rig.ts'

const BYTES = Buffer.from('bytes of a blob')
const WHOLE = { start: 0, end: BYTES.length }
const NEVER: Ping = ({ signal }) => raceAbort(new Promise<number>(() => undefined), signal)

/** Lets everything that is already decided happen. */
const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

function setUp(ping: Ping) {
  const [clock, inner, log] = [new ManualClock(), new ClosableFake('registry:registry.test'), new TestLog()]
  let pings = 0
  const counted: Ping = options => {
    pings += 1
    return ping(options)
  }
  const deps = { clock, inner, log, metrics: new Registry(), ping: counted }
  const watched = watchedRegistry(deps, { host: 'registry.test:5000' })
  const digest = inner.add(BYTES)
  /** The inner origin answers nobody until the signal that it was given says so. */
  const hang = (): void => {
    inner.beforeAnswer = (_, { signal }) => raceAbort(new Promise<void>(() => undefined), signal)
  }
  const advance = async (ms: number): Promise<void> => {
    clock.advance(ms)
    await settle()
  }
  return { advance, clock, hang, inner, key: keyOf(digest), log, pings: () => pings, watched }
}

/** What became of a request so far. */
function watch(promise: Promise<unknown>): { ended: boolean; error?: unknown } {
  const outcome: { ended: boolean; error?: unknown } = { ended: false }
  promise.then(
    () => (outcome.ended = true),
    (error: unknown) => Object.assign(outcome, { ended: true, error }),
  )
  return outcome
}

function assertHung({ ended, error }: { ended: boolean; error?: unknown }): void {
  assert.ok(ended, 'it ended')
  assert.ok(error instanceof ShoalError)
  assert.equal(error.code, 'ERR_UPSTREAM_TIMEOUT')
  assert.deepEqual(error.details, { host: 'registry.test:5000', hung: true })
}

test('it goes by the name of the registry, answers as it does, and closes it', async () => {
  const { inner, key, watched } = setUp(NEVER)
  inner.begin = inner.beginHere
  const again = watchedRegistry(
    { clock: new ManualClock(), inner, log: new TestLog(), metrics: new Registry(), ping: NEVER },
    { host: 'registry.test' },
  )
  assert.equal(watched.begin, undefined)
  assert.equal(again.name, 'registry:registry.test')
  assert.equal((await again.stat(key))?.size, BYTES.length)
  assert.deepEqual(await collect(await again.open(key, WHOLE)), BYTES)
  const begun = await again.begin?.(key, { start: 0, end: 5 })
  assert.deepEqual(await collect(begun?.body), BYTES.subarray(0, 5))
  assert.equal(await again.stat(keyOf(`sha256:${'0'.repeat(64)}`)), undefined)
  assert.equal(again.readsWhole(key), false)
  await again.close()
  assert.equal(inner.closed, 1)
})

test('a request that is not answered within a second, nor its ping within another, ends with all the others', async () => {
  const { advance, clock, hang, key, log, pings, watched } = setUp(NEVER)
  const unread = await watched.open(key, WHOLE)
  hang()
  const asked = [watch(watched.stat(key)), watch(watched.open(key, WHOLE))]
  await advance(999)
  assert.equal(pings(), 0)
  await advance(1)
  assert.equal(pings(), 1)
  await advance(999)
  assert.ok(asked.every(({ ended }) => !ended))
  await advance(1)
  asked.forEach(assertHung)
  assertHung(await settled(collect(unread)))
  assert.equal(log.lines.filter(line => line.startsWith('registry hangs')).length, 1)
  await advance(10_000)
  assert.equal(pings(), 1, 'nobody waits, nobody pings')
  assert.equal(clock.sleeping, 0)
})

test('for some seconds after it hung, who asks it learns within a second whether it still does', async () => {
  const { advance, hang, inner, key, pings, watched } = setUp(NEVER)
  const { beforeAnswer } = inner
  hang()
  watch(watched.stat(key))
  await advance(1_000)
  await advance(1_000)
  const second = watch(watched.stat(key))
  await settle()
  assert.equal(pings(), 2)
  await advance(1_000)
  assertHung(second)

  inner.beforeAnswer = beforeAnswer
  assert.equal((await watched.stat(key))?.size, BYTES.length, 'once it is back it is used as ever')
  hang()
  await advance(5_000)
  const later = watch(watched.stat(key))
  await advance(1_000)
  assert.equal(later.ended, false, 'it has got its second back')
  await advance(1_000)
  assertHung(later)
})

const SIGNS_OF_LIFE: readonly [title: string, ping: Ping][] = [
  ['answers its pings', () => Promise.resolve(200)],
  ['answers its pings with an error', () => Promise.resolve(503)],
  [
    'refuses connections',
    () => Promise.reject(new ShoalError('ERR_UPSTREAM_TRANSPORT', 'could not be talked to (ECONNREFUSED)')),
  ],
]

for (const [title, ping] of SIGNS_OF_LIFE) {
  test(`a registry that ${title} does not hang`, async () => {
    const { advance, hang, key, log, pings, watched } = setUp(ping)
    hang()
    const leave = new AbortController()
    const asked = watch(watched.stat(key, { signal: leave.signal }))
    for (let second = 1; second <= 9; second += 1) {
      await advance(1_000)
      assert.equal(pings(), second)
    }
    assert.equal(asked.ended, false)
    assert.deepEqual(log.lines, [])
    const reason = new Error('left')
    leave.abort(reason)
    await settle()
    assert.equal(asked.error, reason)
  })
}

async function settled(promise: Promise<unknown>): Promise<{ ended: boolean; error?: unknown }> {
  const outcome = watch(promise)
  await settle()
  return outcome
}
