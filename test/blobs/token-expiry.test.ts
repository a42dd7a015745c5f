import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tokenExpiry } from '../../src/blobs/token-expiry.ts'

function tokenOf(claims: unknown): string {
  const [header, payload] = [{ alg: 'ES256' }, claims].map(part =>
    Buffer.from(JSON.stringify(part)).toString('base64url'),
  )
  return `${header ?? ''}.${payload ?? ''}.c2lnbmF0dXJl`
}

test('a JWT says when it expires', () => {
  assert.equal(tokenExpiry(`Bearer ${tokenOf({ exp: 1_700_000_000 })}`), 1_700_000_000_000)
  assert.equal(tokenExpiry(`bearer  ${tokenOf({ exp: 0.5, sub: 'ü' })}`), 500)
})

test('whatever else is sent says nothing', () => {
  for (const header of [
    '',
    'Bearer',
    'Bearer opaque',
    'Bearer a.b',
    'Bearer a.b.c',
    `Basic ${tokenOf({ exp: 1 })}`,
    `Bearer ${tokenOf({})}`,
    `Bearer ${tokenOf({ exp: '1' })}`,
    `Bearer ${tokenOf([1])}`,
    `Bearer ${tokenOf(null)}`,
    `Bearer ${tokenOf({ exp: 1 })}.more`,
  ])
    assert.equal(tokenExpiry(header), undefined, header)
})
