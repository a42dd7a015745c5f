import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatListenAddress, parseListenAddress } from '../../src/config/index.ts'

/** deepEqual tells objects with and without a prototype apart. */
const PLAIN = { noNullPrototype: true }

test('an address that is written and read again is the same', () => {
  const tcp = fc.record(
    {
      kind: fc.constant('tcp' as const),
      host: fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain()),
      port: fc.nat(65_535),
    },
    PLAIN,
  )
  const unix = fc.record(
    {
      kind: fc.constant('unix' as const),
      path: fc.webPath().map(path => `/run${path}`.slice(0, 107)),
    },
    PLAIN,
  )
  fc.assert(
    fc.property(fc.oneof(tcp, unix), address => {
      assert.deepEqual(parseListenAddress(formatListenAddress(address)), address)
    }),
  )
})

test('each form of an address', () => {
  assert.deepEqual(parseListenAddress('127.0.0.1:65001'), { kind: 'tcp', host: '127.0.0.1', port: 65_001 })
  assert.deepEqual(parseListenAddress('[::1]:0'), { kind: 'tcp', host: '::1', port: 0 })
  assert.deepEqual(parseListenAddress('localhost:80'), { kind: 'tcp', host: 'localhost', port: 80 })
  assert.deepEqual(parseListenAddress('unix:/run/a b.sock'), { kind: 'unix', path: '/run/a b.sock' })
})

const WRONG = [
  '',
  '80',
  ':80',
  'localhost',
  'localhost:',
  '127.0.0.1:65536',
  '127.0.0.1:x',
  '300.1.1.1:80',
  '1.2.3:80',
  '::1:80',
  '[::1]',
  '[::g]:80',
  '[127.0.0.1]:80',
  'a b:80',
  '-a:80',
  'http://127.0.0.1:80',
  '127.0.0.1:80 ',
  'unix:',
  'unix:run/a.sock',
  'unix:/a\0b',
  `unix:/${'a'.repeat(107)}`,
]
for (const text of WRONG) {
  test(`${JSON.stringify(text.slice(0, 30))} is no address`, () => assert.equal(parseListenAddress(text), undefined))
}
