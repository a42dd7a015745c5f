import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { parseUrl, sortPrefixes } from '../../src/http/target.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`

describe('parseUrl', () => {
  test('knows every path of the pull API', () => {
    assert.deepEqual(parseUrl(`/v2/a/b/blobs/${DIGEST}`).target, { kind: 'blob', repository: 'a/b', digest: DIGEST })
    assert.deepEqual(parseUrl('/v2/a/manifests/v1').target, { kind: 'manifest', repository: 'a', reference: 'v1' })
    assert.deepEqual(parseUrl('/v2/a/tags/list').target, { kind: 'tags', repository: 'a' })
    assert.deepEqual(parseUrl(`/v2/a/referrers/${DIGEST}`).target, {
      kind: 'referrers',
      repository: 'a',
      digest: DIGEST,
    })
  })

  test('a repository may have components called blobs or manifests', () => {
    assert.deepEqual(parseUrl(`/v2/x/blobs/y/blobs/${DIGEST}`).target, {
      kind: 'blob',
      repository: 'x/blobs/y',
      digest: DIGEST,
    })
    assert.deepEqual(parseUrl('/v2/manifests/manifests/manifests').target, {
      kind: 'manifest',
      repository: 'manifests',
      reference: 'manifests',
    })
  })

  test('ns is taken out of the query, and the rest of it is kept for the origin', () => {
    const parsed = parseUrl('/v2/a/tags/list?n=5&ns=docker.io&last=x')
    assert.equal(parsed.namespace, 'docker.io')
    assert.equal(parsed.query, 'n=5&last=x')
    assert.equal(parseUrl('/v2/a/tags/list?ns=').namespace, undefined)
  })

  test('an encoded digest is the same digest, and broken encoding is refused by name', () => {
    assert.deepEqual(parseUrl(`/v2/a/blobs/sha256%3A${'a'.repeat(64)}`).target, {
      kind: 'blob',
      repository: 'a',
      digest: DIGEST,
    })
    assert.throws(() => parseUrl('/v2/%zz/tags/list'), { code: 'ERR_NAME_INVALID' })
  })

  test('uploads are recognised, so that they are refused as pushes', () => {
    assert.equal(parseUrl('/v2/a/blobs/uploads/').target.kind, 'upload')
    assert.equal(parseUrl('/v2/a/blobs/uploads/some-id?digest=x').target.kind, 'upload')
  })

  test('no other path means anything', () => {
    for (const path of [
      '/',
      '/v1/',
      '/v2/a',
      '/v2//blobs/x',
      '/v2/_catalog',
      '/v2/a/tags/other',
      '/v2/blobs/x',
      '/healthy/',
      '/server',
      '',
    ]) {
      assert.equal(parseUrl(path).target.kind, 'unknown', path)
    }
  })

  test('what people ping is answered under every name that it has', () => {
    for (const [path, body] of [
      ['/v2/', '{}'],
      ['/v2', '{}'],
      ['/server/ping', 'pong'],
      ['/healthy', 'ok'],
      ['/healthy?from=anywhere', 'ok'],
    ] as const) {
      const { target } = parseUrl(path)
      assert.equal(target.kind === 'base' ? target.answer.body : target.kind, body, path)
    }
  })

  test('no path makes it throw anything but its own error', () => {
    fc.assert(
      fc.property(fc.webPath(), fc.string(), (path, noise) => {
        for (const url of [path, `/v2/${path}`, `/v2/${noise}`, noise]) {
          try {
            parseUrl(url)
          } catch (error: unknown) {
            assert.equal((error as { code?: string }).code, 'ERR_NAME_INVALID')
          }
        }
      }),
    )
  })
})

describe('parseUrl below a prefix', () => {
  const HEX = 'b'.repeat(64)
  const HEX_512 = 'c'.repeat(128)
  const prefixes = sortPrefixes([
    { prefix: '/models', origin: 'models', repository: 'blobs' },
    { prefix: '/models/large', origin: 'large', repository: 'library/large' },
  ])
  const find = (url: string): unknown => parseUrl(url, prefixes).target

  test('a blob goes by its hex or by its digest, with either algorithm', () => {
    const blob = { kind: 'blob', repository: 'blobs', registry: 'models' }
    assert.deepEqual(find(`/models/${HEX}`), { ...blob, digest: `sha256:${HEX}` })
    assert.deepEqual(find(`/models/sha256:${HEX}`), { ...blob, digest: `sha256:${HEX}` })
    assert.deepEqual(find(`/models/sha256%3A${HEX}?ns=ignored`), { ...blob, digest: `sha256:${HEX}` })
    assert.deepEqual(find(`/models/${HEX_512}`), { ...blob, digest: `sha512:${HEX_512}` })
    assert.deepEqual(find(`/models/sha512:${HEX_512}`), { ...blob, digest: `sha512:${HEX_512}` })
  })

  test('the longest prefix has the word, and a prefix ends at a slash', () => {
    const blob = { kind: 'blob', repository: 'library/large', registry: 'large', digest: `sha256:${HEX}` }
    assert.deepEqual(find(`/models/large/${HEX}`), blob)
    assert.deepEqual(find(`/models-too/${HEX}`), { kind: 'unknown' })
  })

  test('nothing else below a prefix means anything', () => {
    for (const path of [
      '/models',
      '/models/',
      `/models/${HEX}/`,
      `/models//${HEX}`,
      `/models/${HEX.toUpperCase()}`,
      `/models/${HEX.slice(1)}`,
      `/models/${HEX_512.slice(1)}`,
      `/models/md5:${'a'.repeat(32)}`,
      `/models/sha512:${HEX}`,
      `/models/../${HEX}`,
      `/models/..%2f${HEX}`,
      `/models/other/${HEX}`,
      `/models/large/x/${HEX}`,
      `/${HEX}`,
    ]) {
      assert.deepEqual(find(path), { kind: 'unknown' }, path)
    }
  })
})
