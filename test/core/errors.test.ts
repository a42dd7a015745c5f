import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import { test } from 'node:test'
import {
  asError,
  describeError,
  ERROR_TABLE,
  errorCode,
  ShoalError,
  systemCode,
  type ErrorCode,
} from '../../src/core/index.ts'
import { repositoryFile } from './repository.ts'

test('an error carries its code, its details and its cause', () => {
  const cause = new Error('ECONNRESET')
  const error = new ShoalError('ERR_UPSTREAM_STATUS', 'answered 503', { cause, details: { status: 503 } })
  assert.ok(error instanceof Error)
  assert.equal(error.name, 'ShoalError')
  assert.equal(error.code, 'ERR_UPSTREAM_STATUS')
  assert.equal(error.cause, cause)
  assert.deepEqual(error.details, { status: 503 })
})

test('an error without details has empty ones, and without a cause none at all', () => {
  const error = new ShoalError('ERR_CLOSED', 'closed')
  assert.deepEqual(error.details, {})
  assert.equal('cause' in error, false)
})

test('whether an error is retryable is what the table says of its code', () => {
  for (const [code, { retryable }] of Object.entries(ERROR_TABLE))
    assert.equal(new ShoalError(code as ErrorCode, '').retryable, retryable)
})

test('the code of an error is ours or the system’s, never mixed', () => {
  const ours = new ShoalError('ERR_STORE_FULL', 'full')
  const system = Object.assign(new Error('no such file'), { code: 'ENOENT' })
  assert.equal(errorCode(ours), 'ERR_STORE_FULL')
  assert.equal(errorCode(system), undefined)
  assert.equal(systemCode(system), 'ENOENT')
  for (const other of [undefined, null, 'ENOENT', {}, { code: 5 }]) {
    assert.equal(errorCode(other), undefined)
    assert.equal(systemCode(other), undefined)
  }
})

test('whatever was thrown is an error, and an error is itself', () => {
  const error = new TypeError('x')
  assert.equal(asError(error), error)
  assert.equal(asError('text').message, 'text')
  assert.equal(asError(undefined).message, 'undefined')
})

test('an error is described in one line with its causes, each said once', () => {
  const error = new Error('pull failed', { cause: new Error('origin failed', { cause: new Error('origin failed') }) })
  assert.equal(describeError(error), 'pull failed: origin failed')
  assert.equal(describeError(new Error('outer', { cause: 'text' })), 'outer')
  assert.equal(describeError('text'), 'text')
  assert.equal(describeError(undefined), 'undefined')
})

test('docs/errors.md has every code with its sentence, and no other', async () => {
  const text = await fs.readFile(repositoryFile('docs/errors.md'), 'utf8')
  const documented = Array.from(
    text.matchAll(/^\| `(\w+)` \| (.+) \| (yes|no) \|$/gm),
    ([, code, sentence, retryable]) => [code, { sentence, retryable: retryable === 'yes' }],
  )
  assert.deepEqual(documented, Object.entries(ERROR_TABLE))
})

test('a cycle of causes is described and does not hang', () => {
  const first = new Error('first')
  const second = new Error('second', { cause: first })
  first.cause = second
  assert.equal(describeError(first), 'first: second')
})
