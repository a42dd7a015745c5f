import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { registryOf, type SaidRegistry } from '../../src/http/registry-name.ts'

const OPTIONS = {
  defaultRegistry: 'default.test',
  hosts: new Map([
    ['mirror.test', 'virtual.test'],
    ['mirror.test:5001', 'port.test'],
  ]),
}

function named(said: Partial<SaidRegistry>): string {
  return registryOf({ namespace: undefined, header: undefined, host: undefined, ...said }, OPTIONS)
}

describe('registryOf', () => {
  test('ns counts before the header, the header before the host, the host before the default', () => {
    const said = { namespace: 'ns.test', header: 'https://header.test', host: 'mirror.test' }
    assert.equal(named(said), 'ns.test')
    assert.equal(named({ ...said, namespace: undefined }), 'header.test')
    assert.equal(named({ host: 'mirror.test' }), 'virtual.test')
    assert.equal(named({ host: 'elsewhere.test' }), 'default.test')
    assert.equal(named({}), 'default.test')
    assert.equal(named({ header: '', host: 'mirror.test' }), 'virtual.test')
  })

  test('a URL is as good as a name: its scheme, its path and the port that goes without saying are dropped', () => {
    for (const [text, name] of [
      ['https://registry.test', 'registry.test'],
      ['HTTPS://Registry.TEST/', 'registry.test'],
      ['https://registry.test:443/v2/', 'registry.test'],
      ['http://registry.test:80', 'registry.test'],
      ['https://registry.test:80', 'registry.test:80'],
      ['http://registry.test:5000/some/path?query#fragment', 'registry.test:5000'],
      ['registry.test', 'registry.test'],
      ['registry.test:443', 'registry.test:443'],
      ['https://index.docker.io', 'docker.io'],
      ['http://[::1]:5000/', '[::1]:5000'],
    ] as const) {
      assert.equal(named({ header: text }), name, text)
      assert.equal(named({ namespace: text }), name, text)
    }
  })

  test('a virtual host is found with its own port first, then with any, in any case', () => {
    assert.equal(named({ host: 'MIRROR.test' }), 'virtual.test')
    assert.equal(named({ host: 'mirror.test:65001' }), 'virtual.test')
    assert.equal(named({ host: 'mirror.test:5001' }), 'port.test')
    assert.equal(named({ host: 'mirror.test.evil.example' }), 'default.test')
    for (const host of ['__proto__', 'constructor', '', ':', '[::1]:1']) assert.equal(named({ host }), 'default.test')
  })

  test('what is no name is refused, and not repeated: it may hold a password', () => {
    for (const text of ['https://user:secret@registry.test', 'a b', 'https://', '*', 'a, b', '..', 'ftp://x', '/']) {
      for (const said of [{ namespace: text }, { header: text }]) {
        assert.throws(
          () => named(said),
          (error: Error & { code?: string }) => error.code === 'ERR_ORIGIN_UNKNOWN' && !error.message.includes(text),
          text,
        )
      }
    }
  })

  test('whatever a request says, the outcome is a name or a refusal', () => {
    const text = fc.option(fc.oneof(fc.string(), fc.webUrl()), { nil: undefined })
    fc.assert(
      fc.property(text, text, text, (namespace, header, host) => {
        try {
          assert.match(named({ namespace, header, host }), /^[a-z0-9.:[\]-]+$/)
        } catch (error: unknown) {
          assert.equal((error as { code?: string }).code, 'ERR_ORIGIN_UNKNOWN')
        }
      }),
    )
  })
})
