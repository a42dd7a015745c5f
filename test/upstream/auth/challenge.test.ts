import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseChallenges } from '../../../src/upstream/auth/challenge.ts'

function plain(values: readonly string[]): unknown {
  return parseChallenges(values).map(({ params, scheme }) => ({ scheme, params: { ...params } }))
}

test('a Bearer challenge is read with its parameters, names in lower case', () => {
  assert.deepEqual(plain(['Bearer Realm="https://auth.example/token",service="a b, c",scope="repository:x/y:pull"']), [
    {
      scheme: 'bearer',
      params: { realm: 'https://auth.example/token', service: 'a b, c', scope: 'repository:x/y:pull' },
    },
  ])
})

test('several challenges are told apart, in one header and in several', () => {
  const expected = [
    { scheme: 'negotiate', params: {} },
    { scheme: 'basic', params: { realm: 'a, Bearer realm="b"' } },
    { scheme: 'bearer', params: { realm: 'https://c', error: 'invalid_token' } },
  ]
  const basic = 'Basic realm="a, Bearer realm=\\"b\\""'
  const bearer = 'Bearer realm="https://c" , error=invalid_token'
  assert.deepEqual(plain([`Negotiate, ${basic}, ${bearer}`]), expected)
  assert.deepEqual(plain(['Negotiate', basic, bearer]), expected)
})

test('a scheme with a blob of its own does not hide the one that follows', () => {
  assert.deepEqual(plain(['Negotiate oYG2MIGzoAMKAQ==, Basic realm="x"']), [
    { scheme: 'negotiate', params: {} },
    { scheme: 'basic', params: { realm: 'x' } },
  ])
})

test('blanks around the equals sign and empty list members are allowed', () => {
  assert.deepEqual(plain([' , Bearer realm = "r" ,, service= s,']), [
    { scheme: 'bearer', params: { realm: 'r', service: 's' } },
  ])
})

test('of a repeated parameter the first counts, so that nothing can be smuggled in behind it', () => {
  assert.deepEqual(plain(['Bearer realm="https://good", realm="https://evil"']), [
    { scheme: 'bearer', params: { realm: 'https://good' } },
  ])
})

test('what breaks the grammar ends the reading, and what came before it stands', () => {
  assert.deepEqual(plain(['Basic realm="x", Bearer realm="unterminated']), [
    { scheme: 'basic', params: { realm: 'x' } },
    { scheme: 'bearer', params: {} },
  ])
  assert.deepEqual(plain(['realm="no scheme"', '"quoted"', '', '=']), [])
})

test('a parameter named like a property of objects is only a parameter', () => {
  const [challenge] = parseChallenges(['Bearer __proto__="x", constructor="y"'])
  assert.deepEqual(Object.entries(challenge!.params), [
    ['__proto__', 'x'],
    ['constructor', 'y'],
  ])
  assert.deepEqual(parseChallenges(['Bearer a="b"'])[0]!.params['constructor'], undefined)
})

test('what is written as a challenge is read as it was, and no text breaks the parser', () => {
  const token = fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/)
  const value = fc.string({ unit: 'binary-ascii', maxLength: 20 }).filter(text => /^[\x20-\x7e]*$/.test(text))
  const params = fc.uniqueArray(fc.tuple(token, value), { selector: ([name]) => name, minLength: 1, maxLength: 4 })
  const challenges = fc.array(fc.record({ scheme: token, params }), { minLength: 1, maxLength: 3 })
  fc.assert(
    fc.property(challenges, list => {
      const text = list
        .map(({ params: pairs, scheme }) => {
          const written = pairs.map(([name, text]) => `${name}="${text.replace(/[\\"]/g, '\\$&')}"`)
          return `${scheme} ${written.join(', ')}`
        })
        .join(', ')
      const expected = list.map(({ params: pairs, scheme }) => ({ scheme, params: pairs }))
      const read = parseChallenges([text]).map(({ params: found, scheme }) => ({
        scheme,
        params: Object.entries(found),
      }))
      assert.deepEqual(read, expected)
    }),
  )
  fc.assert(fc.property(fc.string(), text => void parseChallenges([text])))
})
