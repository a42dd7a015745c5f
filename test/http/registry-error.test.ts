import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ERROR_TABLE, ShoalError, type ErrorCode } from '../../src/core/index.ts'
import { answerFor } from '../../src/http/registry-error.ts'

describe('answerFor', () => {
  test('every code has an answer that tells a client what to do', () => {
    for (const code of Object.keys(ERROR_TABLE) as ErrorCode[]) {
      const { status } = answerFor(new ShoalError(code, 'why'))
      assert.ok(status >= 400 && status < 600, code)
    }
  })

  test("the origin's refusal passes with its own status and its challenges untouched", () => {
    const wwwAuthenticate = ['Bearer realm="https://auth.example/token",service="r"', 'Basic realm="r"']
    const refused = answerFor(new ShoalError('ERR_UPSTREAM_AUTH', 'no', { details: { status: 401, wwwAuthenticate } }))
    assert.equal(refused.status, 401)
    assert.equal(refused.code, 'UNAUTHORIZED')
    assert.deepEqual(refused.headers['WWW-Authenticate'], wwwAuthenticate)
    assert.equal(answerFor(new ShoalError('ERR_UPSTREAM_AUTH', 'no', { details: { status: 403 } })).status, 403)
  })

  test('429 passes with Retry-After, other 4xx pass, 5xx become 503', () => {
    const limited = answerFor(new ShoalError('ERR_UPSTREAM_STATUS', 'x', { details: { status: 429, retryAfter: '7' } }))
    assert.deepEqual([limited.status, limited.headers['Retry-After']], [429, '7'])
    assert.equal(answerFor(new ShoalError('ERR_UPSTREAM_STATUS', 'x', { details: { status: 451 } })).status, 451)
    const broken = answerFor(new ShoalError('ERR_UPSTREAM_STATUS', 'x', { details: { status: 500 } }))
    assert.equal(broken.status, 503)
    assert.ok(broken.headers['Retry-After'] !== undefined)
  })

  test('what cannot be served is 503, so that clients fall back; what nobody has is 404', () => {
    assert.equal(answerFor(new ShoalError('ERR_UPSTREAM_TIMEOUT', 'x')).status, 503)
    assert.equal(answerFor(new ShoalError('ERR_BLOB_UNAVAILABLE', 'x')).status, 503)
    assert.equal(answerFor(new ShoalError('ERR_BLOB_UNAVAILABLE', 'x', { details: { absent: true } })).status, 404)
  })

  test('every failure says whose it is, in the words of Dragonfly', () => {
    const typeOf = (code: ErrorCode, details = {}): unknown =>
      answerFor(new ShoalError(code, 'x', { details })).headers['X-Dragonfly-Error-Type']
    assert.equal(typeOf('ERR_ORIGIN_UNKNOWN'), 'proxy')
    assert.equal(typeOf('ERR_UPSTREAM_AUTH', { status: 401 }), 'backend')
    for (const status of [404, 429, 451, 500]) assert.equal(typeOf('ERR_UPSTREAM_STATUS', { status }), 'backend')
    assert.equal(typeOf('ERR_BLOB_UNAVAILABLE', { absent: true }), 'backend')
    assert.equal(typeOf('ERR_BLOB_UNAVAILABLE'), 'dfdaemon')
    assert.equal(typeOf('ERR_UPSTREAM_TIMEOUT'), 'dfdaemon')
    assert.equal(answerFor(new TypeError('x')).headers['X-Dragonfly-Error-Type'], 'dfdaemon')
  })

  test('a mistake of ours is 500 and tells nothing of itself', () => {
    const answer = answerFor(new TypeError('secret detail'))
    assert.equal(answer.status, 500)
    assert.ok(!answer.message.includes('secret'))
  })
})
