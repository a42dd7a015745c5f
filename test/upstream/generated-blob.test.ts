import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { bytesOf, contentOf, digestOf, generatedBlob } from '../support/generated-blob.ts'

test('any slice of a generated blob is that slice of the whole', () => {
  const size = 1_000_003
  const blob = generatedBlob(size, 4)
  const whole = bytesOf(blob)
  fc.assert(
    fc.property(fc.nat(size), fc.nat(600_000), (start, length) => {
      const end = Math.min(size, start + length)
      assert.ok(bytesOf(blob, start, end).equals(whole.subarray(start, end)))
    }),
    { numRuns: 50 },
  )
  assert.equal(digestOf(blob), `sha256:${createHash('sha256').update(whole).digest('hex')}`)
  assert.equal(digestOf(contentOf(whole), 'sha512'), `sha512:${createHash('sha512').update(whole).digest('hex')}`)
})

test('no two places and no two seeds look alike', () => {
  const seen = new Set<string>()
  for (const seed of [1, 2]) {
    const blob = generatedBlob(2 ** 33, seed)
    for (let place = 0; place < 2 ** 33; place += 2 ** 26) seen.add(bytesOf(blob, place, place + 32).toString('hex'))
  }
  assert.equal(seen.size, 2 * 128)
})

test('the content is the same in every process', () => {
  assert.equal(
    digestOf(generatedBlob(300_000, 1)),
    'sha256:535d887bc505f4e1f7d9833d99bf26ebbd38f2b0a17f16f0d33308456c7ccff7',
  )
})
