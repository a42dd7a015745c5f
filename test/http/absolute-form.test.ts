import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isOwnAddress, parseAbsoluteForm } from '../../src/http/absolute-form.ts'

describe('parseAbsoluteForm', () => {
  test('takes a URL apart without changing its path', () => {
    assert.deepEqual(parseAbsoluteForm('http://Registry.TEST:5000/v2/a%2Fb/?ns=X'), {
      authority: 'registry.test:5000',
      port: 5000,
      path: '/v2/a%2Fb/?ns=X',
    })
    assert.deepEqual(parseAbsoluteForm('HTTPS://registry.test'), { authority: 'registry.test', port: 443, path: '/' })
    assert.deepEqual(parseAbsoluteForm('http://registry.test?a=b'), {
      authority: 'registry.test',
      port: 80,
      path: '/?a=b',
    })
  })

  test('anything else has another form', () => {
    for (const url of ['/', '/http://x/', '*', 'registry.test:443', 'ftp://x/', 'http:/x', '', ' http://x/']) {
      assert.equal(parseAbsoluteForm(url), undefined, url)
    }
  })
})

describe('isOwnAddress', () => {
  const isOwn = (url: string, localAddress: string | undefined, localPort: number | undefined): boolean =>
    isOwnAddress(parseAbsoluteForm(url)!, { localAddress, localPort } as Parameters<typeof isOwnAddress>[1])

  test('the address and the port on which the connection came in', () => {
    assert.ok(isOwn('http://127.0.0.1:65001/v2/', '127.0.0.1', 65001))
    assert.ok(isOwn('http://localhost:65001/v2/', '127.0.0.1', 65001))
    assert.ok(isOwn('http://127.0.0.1:65001/v2/', '::ffff:127.0.0.1', 65001))
    assert.ok(isOwn('http://[::1]:65001/v2/', '::1', 65001))
    assert.ok(isOwn('http://10.0.0.5/v2/', '10.0.0.5', 80))
  })

  test('no other address, port or user', () => {
    assert.ok(!isOwn('http://127.0.0.1:65002/v2/', '127.0.0.1', 65001))
    assert.ok(!isOwn('http://127.0.0.1/v2/', '127.0.0.1', 65001))
    assert.ok(!isOwn('http://localhost:65001/v2/', '10.0.0.5', 65001))
    assert.ok(!isOwn('http://someone@127.0.0.1:65001/v2/', '127.0.0.1', 65001))
    assert.ok(!isOwn('http://registry.test:65001/v2/', '127.0.0.1', 65001))
    assert.ok(!isOwn('http://localhost/v2/', undefined, undefined))
  })
})
