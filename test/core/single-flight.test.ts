import assert from 'node:assert/strict'
import { test } from 'node:test'
import { raceAbort, SingleFlight } from '../../src/core/index.ts'

/** Work that ends when told to, and that remembers how often it was started and with which signals. */
class ScriptedWork {
  readonly signals: AbortSignal[] = []
  readonly #ends: { resolve: (value: string) => void; reject: (error: Error) => void }[] = []

  readonly run = (signal: AbortSignal): Promise<string> => {
    this.signals.push(signal)
    return new Promise((resolve, reject) => this.#ends.push({ resolve, reject }))
  }

  end(index: number): { resolve: (value: string) => void; reject: (error: Error) => void } {
    return this.#ends[index]!
  }
}

test('callers of one key share one piece of work and its result', async () => {
  const flights = new SingleFlight<string>()
  const work = new ScriptedWork()
  const calls = Array.from({ length: 10 }, () => flights.run('a', work.run))
  assert.equal(flights.size, 1)
  work.end(0).resolve('done')
  assert.deepEqual(await Promise.all(calls), Array<string>(10).fill('done'))
  assert.equal(work.signals.length, 1)
  assert.equal(flights.size, 0)
})

test('different keys do not wait for each other', async () => {
  const flights = new SingleFlight<string>()
  const work = new ScriptedWork()
  const first = flights.run('a', work.run)
  const second = flights.run('b', work.run)
  assert.equal(flights.size, 2)
  work.end(1).resolve('b')
  assert.equal(await second, 'b')
  work.end(0).resolve('a')
  assert.equal(await first, 'a')
})

test('a failure is shared by all who wait, and the next caller tries anew', async () => {
  const flights = new SingleFlight<string>()
  const work = new ScriptedWork()
  const failure = new Error('broken')
  const calls = [flights.run('a', work.run), flights.run('a', work.run)]
  work.end(0).reject(failure)
  for (const call of calls) await assert.rejects(call, error => error === failure)
  const again = flights.run('a', work.run)
  work.end(1).resolve('better')
  assert.equal(await again, 'better')
})

test('a caller that leaves gets its own reason, and does not disturb the others', async () => {
  const flights = new SingleFlight<string>()
  const work = new ScriptedWork()
  const controller = new AbortController()
  const reason = new Error('changed my mind')
  const leaving = flights.run('a', work.run, { signal: controller.signal })
  const staying = flights.run('a', work.run)
  controller.abort(reason)
  await assert.rejects(leaving, error => error === reason)
  assert.equal(work.signals[0]?.aborted, false)
  work.end(0).resolve('done')
  assert.equal(await staying, 'done')
})

test('when the last caller leaves the work is aborted, and a later caller starts anew', async () => {
  const flights = new SingleFlight<string>()
  const work = new ScriptedWork()
  const controllers = [new AbortController(), new AbortController()]
  const calls = controllers.map(({ signal }) => flights.run('a', work.run, { signal }))
  for (const controller of controllers) controller.abort(new Error('gone'))
  for (const call of calls) await assert.rejects(call, { message: 'gone' })
  assert.equal(work.signals[0]?.aborted, true)
  assert.equal(flights.size, 0)

  const late = flights.run('a', work.run)
  assert.equal(work.signals.length, 2)
  // The abandoned work may still end in whatever way it likes.
  work.end(0).reject(new Error('aborted'))
  assert.equal(flights.size, 1)
  work.end(1).resolve('fresh')
  assert.equal(await late, 'fresh')
})

test('a caller that comes while the last one is leaving is not given the abandoned work', async () => {
  const flights = new SingleFlight<string>()
  const work = new ScriptedWork()
  const controller = new AbortController()
  const leaving = flights.run('a', work.run, { signal: controller.signal })
  controller.abort(new Error('gone'))
  await assert.rejects(leaving)
  const late = flights.run('a', work.run)
  work.end(0).resolve('stale')
  work.end(1).resolve('fresh')
  assert.equal(await late, 'fresh')
})

test('a caller that has already been aborted starts nothing', async () => {
  const flights = new SingleFlight<string>()
  const work = new ScriptedWork()
  const reason = new Error('too late')
  await assert.rejects(flights.run('a', work.run, { signal: AbortSignal.abort(reason) }), error => error === reason)
  assert.equal(work.signals.length, 0)
})

test('a failure after everyone has left disturbs nobody', async () => {
  const flights = new SingleFlight<string>()
  const controller = new AbortController()
  let failed: () => void = () => undefined
  const hasFailed = new Promise<void>(resolve => (failed = resolve))
  const call = flights.run(
    'a',
    signal =>
      new Promise((_, reject) =>
        signal.addEventListener('abort', () => {
          reject(new Error('nobody hears this'))
          failed()
        }),
      ),
    { signal: controller.signal },
  )
  controller.abort(new Error('gone'))
  await assert.rejects(call, { message: 'gone' })
  await hasFailed
  // An unhandled rejection would fail the whole file by now.
  await new Promise(resolve => setImmediate(resolve))
})

test('racing an abort: the value, the failure, or the reason, whichever is first', async () => {
  const { signal } = new AbortController()
  assert.equal(await raceAbort(Promise.resolve(1), undefined), 1)
  assert.equal(await raceAbort(Promise.resolve(2), signal), 2)
  await assert.rejects(raceAbort(Promise.reject(new Error('broken')), signal), { message: 'broken' })
  const reason = new Error('gone')
  const never = new Promise(() => undefined)
  await assert.rejects(raceAbort(never, AbortSignal.abort(reason)), error => error === reason)
  const controller = new AbortController()
  const race = raceAbort(never, controller.signal)
  controller.abort(reason)
  await assert.rejects(race, error => error === reason)
})

test('the signal of work that has ended is left alone', async () => {
  const flights = new SingleFlight<string>()
  let signal: AbortSignal | undefined
  await flights.run('key', given => {
    signal = given
    return Promise.resolve('done')
  })
  assert.equal(signal?.aborted, false)
})
