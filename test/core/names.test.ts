import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  formatReference,
  isRepositoryName,
  normaliseRegistry,
  parseReference,
  parseRepositoryName,
} from '../../src/core/index.ts'

const GOOD_NAMES = ['a', 'library/alpine', 'a.b_c__d-e---f/0', 'x/y/z', 'a'.repeat(255)]
const BAD_NAMES = [
  '',
  '/',
  'a/',
  '/a',
  'a//b',
  'A',
  'a..b',
  'a___b',
  '-a',
  'a-',
  '_a',
  'a.',
  '../etc',
  'a/../b',
  'a b',
  'a\n',
  'ä',
  'a'.repeat(256),
]

for (const name of GOOD_NAMES) {
  test(`"${name.slice(0, 30)}" is a repository name`, () => {
    assert.equal(isRepositoryName(name), true)
    assert.equal(parseRepositoryName(name), name)
  })
}

for (const name of BAD_NAMES) {
  test(`${JSON.stringify(name.slice(0, 30))} is no repository name`, () => {
    assert.equal(isRepositoryName(name), false)
    assert.throws(() => parseRepositoryName(name), { code: 'ERR_NAME_INVALID' })
  })
}

test('a name that is hard to reject is rejected in no time', () => {
  const started = performance.now()
  assert.equal(isRepositoryName(`${'a-'.repeat(126)}!`), false)
  assert.ok(performance.now() - started < 1000)
})

test('a tag is told from a digest, and both are written as they were read', () => {
  const digest = `sha256:${'0'.repeat(64)}`
  assert.deepEqual(parseReference('v1.2_3-x'), { tag: 'v1.2_3-x' })
  assert.deepEqual(parseReference(digest), { digest })
  for (const text of ['latest', 'A', '_', 'a'.repeat(128), digest])
    assert.equal(formatReference(parseReference(text)), text)
})

for (const text of ['', '.a', '-a', 'a'.repeat(129), 'a/b', 'sha256:abc', 'a b', 'a\n']) {
  test(`${JSON.stringify(text.slice(0, 30))} is neither a tag nor a digest`, () => {
    assert.throws(() => parseReference(text), { code: 'ERR_REFERENCE_INVALID' })
  })
}

test('the names of Docker Hub are one name', () => {
  for (const alias of ['docker.io', 'index.docker.io', 'registry-1.docker.io', 'registry.hub.docker.com', 'Docker.IO'])
    assert.equal(normaliseRegistry(alias), 'docker.io')
})

test('a registry is a host with or without a port', () => {
  for (const name of ['localhost', 'localhost:5000', 'r.example', '10.0.0.5:5000', '[::1]:5000', '[fe80::1]'])
    assert.equal(normaliseRegistry(name), name)
  assert.equal(normaliseRegistry('R.Example:5000'), 'r.example:5000')
})

for (const text of [
  '',
  'https://r.example',
  'r.example/x',
  'r example',
  'user@r.example',
  '-r',
  'r:',
  'r:123456',
  '*',
  '::1',
]) {
  test(`${JSON.stringify(text)} is no registry`, () => assert.equal(normaliseRegistry(text), undefined))
}

test('normalising a registry a second time changes nothing', () => {
  fc.assert(
    fc.property(fc.oneof(fc.domain(), fc.string()), text => {
      const once = normaliseRegistry(text)
      assert.equal(once === undefined ? undefined : normaliseRegistry(once), once)
    }),
  )
})

test('ports beyond 65535, empty labels and broken IPv6 addresses are no registry names', () => {
  for (const name of ['r.example:99999', 'a..b', '[::::]', '[1.2.3.4]', 'a.-b', 'a-.b', '.a']) {
    assert.equal(normaliseRegistry(name), undefined, name)
  }
  assert.equal(normaliseRegistry('[::1]:5000'), '[::1]:5000')
  assert.equal(normaliseRegistry('R.example:65535'), 'r.example:65535')
})
