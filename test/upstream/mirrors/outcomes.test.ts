import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ShoalError, type ErrorCode } from '../../../src/core/index.ts'
import {
  failureKind,
  outcomeOfAnswer,
  outcomeOfError,
  outcomeOfListing,
} from '../../../src/upstream/mirrors/outcomes.ts'

test('only what the host did wrong is a failure of it', () => {
  const table: [ErrorCode, number | undefined, string | undefined][] = [
    ['ERR_UPSTREAM_TIMEOUT', undefined, 'timeout'],
    ['ERR_UPSTREAM_TRANSPORT', undefined, 'transport'],
    ['ERR_UPSTREAM_BODY', undefined, 'body'],
    ['ERR_DIGEST_MISMATCH', undefined, 'body'],
    ['ERR_UPSTREAM_STATUS', 500, 'status'],
    ['ERR_UPSTREAM_STATUS', 503, 'status'],
    ['ERR_UPSTREAM_STATUS', 429, undefined],
    ['ERR_UPSTREAM_STATUS', 400, undefined],
    ['ERR_UPSTREAM_STATUS', 302, undefined],
    ['ERR_UPSTREAM_STATUS', undefined, undefined],
    ['ERR_UPSTREAM_AUTH', 403, undefined],
    ['ERR_CLOSED', undefined, undefined],
    ['ERR_NAME_INVALID', undefined, undefined],
  ]
  for (const [code, status, kind] of table) {
    const error = new ShoalError(code, 'what happened', status === undefined ? {} : { details: { status } })
    assert.equal(failureKind(error), kind, `${code} ${status ?? ''}`)
    assert.equal(outcomeOfError(error), kind === undefined ? 'refused' : 'failed')
  }
  assert.equal(failureKind(new Error('a defect of ours')), undefined)
  assert.equal(failureKind(new DOMException('left', 'AbortError')), undefined)
})

test('answers are told apart by what they bring', () => {
  const listing = (status: number) => outcomeOfListing({ status, headers: {}, body: new Uint8Array() })
  assert.deepEqual([200, 404, 403, 501].map(listing), ['success', 'absent', 'refused', 'refused'])
  assert.deepEqual([undefined, { size: 1 }].map(outcomeOfAnswer), ['absent', 'success'])
})
