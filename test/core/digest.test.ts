import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  digestAlgorithm,
  digestHex,
  digestHexLength,
  formatDigest,
  parseDigest,
  tryParseDigest,
  type DigestAlgorithm,
} from '../../src/core/index.ts'

const hex = (length: number) =>
  fc.string({ unit: fc.constantFrom(...Array.from('0123456789abcdef')), minLength: length, maxLength: length })

const parts = fc
  .constantFrom<DigestAlgorithm>('sha256', 'sha512')
  .chain(algorithm => fc.tuple(fc.constant(algorithm), hex(digestHexLength(algorithm))))

test('a digest taken apart and put together again is the same', () => {
  fc.assert(
    fc.property(parts, ([algorithm, text]) => {
      const digest = formatDigest(algorithm, text)
      assert.equal(digest, `${algorithm}:${text}`)
      assert.equal(parseDigest(digest), digest)
      assert.equal(digestAlgorithm(digest), algorithm)
      assert.equal(digestHex(digest), text)
    }),
  )
})

const WRONG = {
  'no algorithm': 'a'.repeat(64),
  'an unknown algorithm': `md5:${'a'.repeat(32)}`,
  'upper-case hex': `sha256:${'A'.repeat(64)}`,
  'an upper-case algorithm': `SHA256:${'a'.repeat(64)}`,
  'one character too few': `sha256:${'a'.repeat(63)}`,
  'one character too many': `sha256:${'a'.repeat(65)}`,
  'the length of the other algorithm': `sha512:${'a'.repeat(64)}`,
  'a final line break': `sha256:${'a'.repeat(64)}\n`,
  'no hex': `sha256:${'g'.repeat(64)}`,
  'a path': `sha256:../${'a'.repeat(61)}`,
  nothing: '',
}

for (const [what, text] of Object.entries(WRONG)) {
  test(`a digest with ${what} is refused`, () => {
    assert.equal(tryParseDigest(text), undefined)
    assert.throws(() => parseDigest(text), { name: 'ShoalError', code: 'ERR_DIGEST_INVALID' })
  })
}

test('the message about a bad digest does not repeat a megabyte of it', () => {
  assert.throws(
    () => parseDigest('x'.repeat(1_000_000)),
    (error: Error) => error.message.length < 300,
  )
})

test('a digest is not made from hex of the wrong length', () => {
  assert.throws(() => formatDigest('sha256', 'abc'), { code: 'ERR_DIGEST_INVALID' })
})
