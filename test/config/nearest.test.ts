import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { editDistance, nearestKey } from '../../src/config/nearest.ts'

test('the distance of known words', () => {
  assert.equal(editDistance('kitten', 'sitting'), 3)
  assert.equal(editDistance('', 'abc'), 3)
  assert.equal(editDistance('abc', ''), 3)
})

test('a distance is a metric: nothing to itself, the same both ways, and no detour is shorter', () => {
  const word = fc.string({ maxLength: 8 })
  fc.assert(
    fc.property(word, word, word, (a, b, c) => {
      assert.equal(editDistance(a, b) === 0, a === b)
      assert.equal(editDistance(a, b), editDistance(b, a))
      assert.ok(editDistance(a, c) <= editDistance(a, b) + editDistance(b, c))
      assert.ok(editDistance(a, b) <= Math.max(a.length, b.length))
    }),
  )
})

test('a slip of the pen finds the key that was meant', () => {
  assert.deepEqual(nearestKey(['store', 'max_byte']), ['store', 'max_bytes'])
  assert.deepEqual(nearestKey(['mirrors']), ['mirror'])
  assert.deepEqual(nearestKey(['registries', 'r.example', 'password']), ['registries', 'r.example', 'password_file'])
  assert.deepEqual(nearestKey(['registries', 'r.example', 'tls', 'skip-verify']), [
    'registries',
    'r.example',
    'tls',
    'skip_verify',
  ])
  assert.deepEqual(nearestKey(['origins', 'x', 'paht']), ['origins', 'x', 'path'])
})
