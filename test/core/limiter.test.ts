import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Limiter } from '../../src/core/index.ts'

/** Lets everything that is already decided happen. */
const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

test('permits up to the capacity are given at once, the next waits for one to come back', async () => {
  const limiter = new Limiter(2)
  const releases = [await limiter.acquire(), await limiter.acquire()]
  const third = limiter.acquire()
  assert.deepEqual([limiter.used, limiter.waiting], [2, 1])
  releases[0]!()
  const release = await third
  assert.deepEqual([limiter.used, limiter.waiting], [2, 0])
  release()
  releases[1]!()
  assert.equal(limiter.used, 0)
})

test('permits are given in the order of asking, and a small request does not pass a large one', async () => {
  const limiter = new Limiter(10)
  const order: string[] = []
  const first = await limiter.acquire(8)
  const large = limiter.acquire(5).then(release => (order.push('large'), release))
  const small = limiter.acquire(1).then(release => (order.push('small'), release))
  await settle()
  assert.deepEqual(order, [])
  first()
  await Promise.all([large, small])
  assert.deepEqual(order, ['large', 'small'])
})

test('a request larger than the capacity is granted alone', async () => {
  const limiter = new Limiter(4)
  const one = await limiter.acquire(1)
  const huge = limiter.acquire(100)
  await settle()
  assert.equal(limiter.waiting, 1)
  one()
  const release = await huge
  assert.equal(limiter.used, 100)
  const after = limiter.acquire(1)
  await settle()
  assert.equal(limiter.waiting, 1)
  release()
  ;(await after)()
  assert.equal(limiter.used, 0)
})

test('releasing twice gives back once', async () => {
  const limiter = new Limiter(2)
  const release = await limiter.acquire(2)
  release()
  release()
  assert.equal(limiter.used, 0)
})

test('a waiter that is aborted leaves the queue with its reason, and those behind it move up', async () => {
  const limiter = new Limiter(4)
  const held = await limiter.acquire(3)
  const controller = new AbortController()
  const reason = new Error('gone')
  const blocked = limiter.acquire(4, { signal: controller.signal })
  const behind = limiter.acquire(1)
  await settle()
  assert.equal(limiter.waiting, 2)
  controller.abort(reason)
  await assert.rejects(blocked, error => error === reason)
  const release = await behind
  assert.deepEqual([limiter.used, limiter.waiting], [4, 0])
  release()
  held()
  assert.equal(limiter.used, 0)
})

test('a caller that has already been aborted takes nothing', async () => {
  const limiter = new Limiter(1)
  const reason = new Error('too late')
  await assert.rejects(limiter.acquire(1, { signal: AbortSignal.abort(reason) }), error => error === reason)
  assert.deepEqual([limiter.used, limiter.waiting], [0, 0])
})

test('an abort after the permit was granted changes nothing', async () => {
  const limiter = new Limiter(1)
  const held = await limiter.acquire()
  const controller = new AbortController()
  const waiting = limiter.acquire(1, { signal: controller.signal })
  const last = limiter.acquire()
  held()
  controller.abort(new Error('too late'))
  const release = await waiting
  assert.deepEqual([limiter.used, limiter.waiting], [1, 1])
  release()
  ;(await last)()
  assert.equal(limiter.used, 0)
})

test('whatever is asked for, no more than the capacity is out unless it is one single request, and everyone is served', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 10 }),
      fc.array(fc.integer({ min: 1, max: 15 }), { maxLength: 30 }),
      async (capacity, amounts) => {
        const limiter = new Limiter(capacity)
        let holders = 0
        const served = await Promise.all(
          amounts.map(async amount => {
            const release = await limiter.acquire(amount)
            holders += 1
            assert.ok(limiter.used <= capacity || holders === 1)
            await settle()
            holders -= 1
            release()
            return amount
          }),
        )
        assert.deepEqual(served, amounts)
        assert.deepEqual([limiter.used, limiter.waiting], [0, 0])
      },
    ),
    { numRuns: 30 },
  )
})
