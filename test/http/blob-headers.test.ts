import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { describe, test } from 'node:test'
import { parseDigest } from '../../src/core/index.ts'
import { selectionOf } from '../../src/http/blob-headers.ts'

const DIGEST = parseDigest(`sha256:${'a'.repeat(64)}`)
const ETAG = `"${DIGEST}"`
const SIZE = 1000

function select(headers: Record<string, string>, method = 'GET') {
  return selectionOf({ method, headers } as unknown as IncomingMessage, DIGEST, SIZE)
}

describe('selectionOf', () => {
  test('every range form becomes absolute', () => {
    assert.deepEqual(select({ range: 'bytes=10-19' }), { kind: 'ranges', ranges: [{ start: 10, end: 20 }] })
    assert.deepEqual(select({ range: 'bytes=990-' }), { kind: 'ranges', ranges: [{ start: 990, end: 1000 }] })
    assert.deepEqual(select({ range: 'bytes=-5' }), { kind: 'ranges', ranges: [{ start: 995, end: 1000 }] })
    assert.deepEqual(select({ range: 'bytes=0-0, -1' }), {
      kind: 'ranges',
      ranges: [
        { start: 0, end: 1 },
        { start: 999, end: 1000 },
      ],
    })
  })

  test('a range that is no range, and one in another unit, mean the whole blob', () => {
    for (const range of ['bytes=5', 'bytes=9-1', 'lines=1-2', 'bytes=', 'bytes=a-b']) {
      assert.deepEqual(select({ range }), { kind: 'whole' }, range)
    }
  })

  test('an unsatisfiable range is an error that knows the size', () => {
    assert.throws(() => select({ range: 'bytes=1000-' }), { code: 'ERR_RANGE_UNSATISFIABLE', details: { size: SIZE } })
    assert.throws(() => select({ range: 'bytes=-0' }), { code: 'ERR_RANGE_UNSATISFIABLE' })
  })

  test('HEAD ignores Range', () => {
    assert.deepEqual(select({ range: 'bytes=0-0' }, 'HEAD'), { kind: 'whole' })
  })

  test('If-None-Match with this digest, weak or strong or any, is 304 before any range', () => {
    for (const value of [ETAG, `W/${ETAG}`, '*', `"other", ${ETAG}`]) {
      assert.deepEqual(select({ 'if-none-match': value, range: 'bytes=0-0' }), { kind: 'not-modified' }, value)
    }
    assert.equal(select({ 'if-none-match': '"other"' }).kind, 'whole')
  })

  test('If-Range with another validator means the whole blob', () => {
    assert.equal(select({ range: 'bytes=0-0', 'if-range': ETAG }).kind, 'ranges')
    assert.equal(select({ range: 'bytes=0-0', 'if-range': '"other"' }).kind, 'whole')
    assert.equal(select({ range: 'bytes=0-0', 'if-range': `W/${ETAG}` }).kind, 'whole')
  })

  test('overlapping ranges that add up to more than the blob mean the whole blob', () => {
    assert.equal(select({ range: 'bytes=0-,0-' }).kind, 'whole')
  })
})
