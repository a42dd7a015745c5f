import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLogger } from '../../src/core/index.ts'

test('the silent logger takes everything, and its children are as silent', t => {
  const write = t.mock.method(process.stderr, 'write')
  const child = silentLogger.child({ room: 'store' })
  for (const level of ['debug', 'info', 'warn', 'error'] as const) {
    silentLogger[level]({ digest: 'x' }, 'event')
    child[level]({}, 'event')
  }
  assert.equal(write.mock.callCount(), 0)
})
