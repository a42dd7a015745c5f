import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  blobOf,
  endpointOf,
  namesHost,
  parseDestination,
  parseTunnelTarget,
} from '../../../src/http/proxy/destination.ts'
import { BLOB_PATH, DIGEST } from './proxy-rig.ts'

test('a URL is brought into its normal form', () => {
  for (const [text, href] of [
    ['http://registry.test/v2/', 'http://registry.test/v2/'],
    ['HTTP://Registry.TEST:80/v2/?a=b#c', 'http://registry.test/v2/?a=b'],
    ['http://registry.test./x', 'http://registry.test/x'],
    ['https://registry.test:443', 'https://registry.test/'],
    ['https://registry.test:5000?x', 'https://registry.test:5000/?x'],
    ['http://127.1/x', 'http://127.0.0.1/x'],
    ['http://0x7f000001/x', 'http://127.0.0.1/x'],
    ['http://[::0001]:81/x', 'http://[::1]:81/x'],
    ['http://registry.test/a/../b/%2e%2e/c', 'http://registry.test/c'],
    ['http://registry.test//x', 'http://registry.test//x'],
  ] as const) {
    assert.equal(parseDestination(text)?.href, href, text)
  }
})

test('what is no plain URL is none', () => {
  for (const text of [
    '',
    '/v2/',
    'ftp://registry.test/',
    'http:/registry.test/',
    'http:///registry.test/',
    'http:\\\\registry.test\\',
    'http://user:secret@registry.test/',
    'http://registry.test@evil.test/',
    'http://registry.test:0/',
    'http://registry.test:99999/',
    'http://registry.test:/',
    'http://./',
    'http://registry.test../',
    'http://registry%2etest/',
    'http://r\u00e9gistry.test/',
    'http://registry.test\t/',
    'http://[::1/',
    'http://[::g]/',
    'http://256.256.256.256/',
    ' http://registry.test/',
  ]) {
    assert.equal(parseDestination(text), undefined, text)
  }
})

test('the normal form of a normal form is itself', () => {
  fc.assert(
    fc.property(
      fc.webUrl({ withQueryParameters: true, withFragments: true, validSchemes: ['http', 'https'] }),
      text => {
        const url = parseDestination(text)
        if (url !== undefined) assert.equal(parseDestination(url.href)?.href, url.href)
      },
    ),
  )
})

test('a tunnel goes to a host and a port, and to nothing else', () => {
  for (const [text, host, port] of [
    ['registry.test:443', 'registry.test', 443],
    ['Registry.Test.:5000', 'registry.test', 5000],
    ['[::1]:443', '::1', 443],
    ['2130706433:22', '127.0.0.1', 22],
  ] as const) {
    const url = parseTunnelTarget(text)
    assert.ok(url, text)
    assert.deepEqual(endpointOf(url), { host, port }, text)
  }
  for (const text of [
    '',
    'registry.test',
    'registry.test:',
    'registry.test:0',
    'registry.test:65536',
    ':443',
    'registry.test:443/',
    'registry.test:443?x',
    'user@registry.test:443',
    'http://registry.test:443',
    'registry.test:443\r\nHost: x',
    'registry.test:44 3',
    '::1:443',
    '[::1]',
    '[::1%eth0]:443',
  ]) {
    assert.equal(parseTunnelTarget(text), undefined, JSON.stringify(text))
  }
})

test('the port of a URL is told or follows from its scheme', () => {
  assert.deepEqual(endpointOf(new URL('http://a.test/')), { host: 'a.test', port: 80 })
  assert.deepEqual(endpointOf(new URL('https://a.test/')), { host: 'a.test', port: 443 })
  assert.deepEqual(endpointOf(new URL('https://[::1]:8443/')), { host: '::1', port: 8443 })
})

test('a blob is found in a URL, under the name that its registry has in the table', () => {
  for (const [base, registry] of [
    ['http://registry.test', 'registry.test'],
    ['http://registry.test:80', 'registry.test'],
    ['http://registry.test:443', 'registry.test:443'],
    ['https://registry.test:5000', 'registry.test:5000'],
    ['https://registry-1.docker.io', 'docker.io'],
  ] as const) {
    const blob = blobOf(new URL(`${base}${BLOB_PATH}?x=y`))
    assert.deepEqual(blob, { registry, repository: 'library/app', digest: DIGEST }, base)
  }
})

test('a path that is not exactly that of a blob names none', () => {
  for (const path of [
    '/',
    '/v2/',
    '/v2/library/app/manifests/latest',
    '/v2/library/app/blobs/',
    '/v2/library/app/blobs/sha256:ab',
    '/v2/library/app/blobs/uploads/1',
    `/v2/UPPER/blobs/${DIGEST}`,
    `${BLOB_PATH}/x`,
    `/x${BLOB_PATH}`,
    `/v2/%zz/blobs/${DIGEST}`,
  ]) {
    assert.equal(blobOf(new URL(`http://registry.test${path}`)), undefined, path)
  }
})

test('a pattern names a host exactly, by suffix, by port, or all of them', () => {
  for (const [pattern, url, named] of [
    ['registry.test', 'https://registry.test/', true],
    ['Registry.Test', 'https://registry.test/', true],
    ['registry.test', 'https://registry.test:5000/', true],
    ['registry.test', 'https://xregistry.test/', false],
    ['registry.test:5000', 'https://registry.test:5000/', true],
    ['registry.test:5000', 'https://registry.test/', false],
    ['registry.test:443', 'https://registry.test/', true],
    ['*.test', 'https://registry.test/', true],
    ['*.test', 'https://a.b.test/', true],
    ['*.test', 'https://test/', false],
    ['*.test', 'https://atest/', false],
    ['*.test:443', 'https://a.test:444/', false],
    ['*', 'https://anything.example:99/', true],
    ['*:443', 'https://anything.example/', true],
    ['[::1]', 'https://[::1]:9/', true],
    ['[::1]:9', 'https://[::1]:9/', true],
    ['', 'https://a.test/', false],
  ] as const) {
    assert.equal(namesHost([pattern], new URL(url)), named, `${pattern} ${url}`)
  }
  assert.equal(namesHost([], new URL('https://a.test/')), false)
  assert.equal(namesHost(['b.test', 'a.test'], new URL('https://a.test/')), true)
})
