import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Scope } from '../../src/core/index.ts'

test('what was opened last is closed first, one after the other', async () => {
  const log: string[] = []
  const scope = new Scope()
  const closing = (name: string) => ({
    close: async () => {
      log.push(`${name} closing`)
      await new Promise(resolve => setImmediate(resolve))
      log.push(`${name} closed`)
    },
  })
  scope.use(closing('first'))
  scope.use(closing('second'))
  await scope.close()
  assert.deepEqual(log, ['second closing', 'second closed', 'first closing', 'first closed'])
})

test('each kind of resource is closed in its own way', async () => {
  const closed: string[] = []
  {
    await using scope = new Scope()
    const resource = { close: () => void closed.push('close') }
    assert.equal(scope.use(resource), resource)
    scope.use({ [Symbol.dispose]: () => void closed.push('dispose') })
    scope.use({ [Symbol.asyncDispose]: () => Promise.resolve(void closed.push('asyncDispose')) })
    scope.defer(() => closed.push('deferred'))
  }
  assert.deepEqual(closed, ['deferred', 'asyncDispose', 'dispose', 'close'])
})

test('a resource that fails to close does not keep the others open, and its failure is thrown at the end', async () => {
  const closed: string[] = []
  const failure = new Error('stuck')
  const scope = new Scope()
  scope.defer(() => closed.push('first'))
  scope.defer(() => {
    throw failure
  })
  scope.defer(() => closed.push('last'))
  await assert.rejects(scope.close(), error => error === failure)
  assert.deepEqual(closed, ['last', 'first'])
})

test('several failures are thrown together, in the order in which they happened', async () => {
  const scope = new Scope()
  scope.defer(() => Promise.reject(new Error('a')))
  scope.defer(() => Promise.reject(new Error('b')))
  await assert.rejects(scope.close(), (error: unknown) => {
    assert.ok(error instanceof AggregateError)
    assert.deepEqual(
      error.errors.map((each: Error) => each.message),
      ['b', 'a'],
    )
    return true
  })
})

test('closing again closes nothing twice', async () => {
  let count = 0
  const scope = new Scope()
  scope.defer(() => (count += 1))
  await scope.close()
  await scope.close()
  assert.equal(count, 1)
})

test('closing twice at the same time keeps the order, and both wait for the end', async () => {
  const log: string[] = []
  const scope = new Scope()
  for (const name of ['first', 'second']) {
    scope.defer(async () => {
      log.push(`${name} closing`)
      await new Promise(resolve => setImmediate(resolve))
      log.push(`${name} closed`)
    })
  }
  await Promise.all([scope.close(), scope.close().then(() => log.push('both'))])
  assert.deepEqual(log, ['second closing', 'second closed', 'first closing', 'first closed', 'both'])
})
