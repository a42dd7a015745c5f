import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseImagePattern } from '../../../src/upstream/auth/image-pattern.ts'

/** The examples of kubelet's documentation, and what follows from its code. */
const MATCHING: [pattern: string, image: string][] = [
  ['registry.io', 'registry.io/app'],
  ['registry.io', 'registry.io/deep/down/app'],
  ['*.registry.io', 'foo.registry.io/app'],
  ['*.*.registry.io', 'a.b.registry.io/app'],
  ['123456789.dkr.ecr.*.amazonaws.com', '123456789.dkr.ecr.eu-west-1.amazonaws.com/app'],
  ['*.dkr.ecr.*.amazonaws.com', '1.dkr.ecr.us-east-1.amazonaws.com/a/b'],
  ['*.azurecr.io', 'corp.azurecr.io/app'],
  ['app*.registry.io', 'app-7.registry.io/x'],
  ['app?.registry.io', 'app7.registry.io/x'],
  ['app[0-9].registry.io', 'app7.registry.io/x'],
  ['app[^0-9].registry.io', 'apps.registry.io/x'],
  ['a\\pp.registry.io', 'app.registry.io/x'],
  ['registry.io:8080', 'registry.io:8080/app'],
  ['registry.io:8080/path', 'registry.io:8080/path/app'],
  ['registry.io/team', 'registry.io/team/app'],
  ['registry.io/team', 'registry.io/teams'],
  ['*', 'localhost/app'],
  ['[::1]:5000', '[::1]:5000/app'],
]

const DIFFERENT: [pattern: string, image: string, why: string][] = [
  ['*.io', 'k8s.registry.io/app', 'a star is for one label'],
  ['registry.io', 'foo.registry.io/app', 'fewer labels'],
  ['*.registry.io', 'registry.io/app', 'more labels'],
  ['registry.io', 'registry.io:443/app', 'a port is only matched by itself'],
  ['registry.io:443', 'registry.io/app', 'a port is only matched by itself'],
  ['registry.io:*', 'registry.io:443/app', 'ports are not globbed'],
  ['registry.io/team', 'registry.io/other/app', 'another path'],
  ['registry.io/*/app', 'registry.io/team/app', 'paths are not globbed'],
  ['registry.io', 'registryxio/app', 'a dot is a dot'],
  ['app[0-9].registry.io', 'apps.registry.io/x', 'not in the class'],
  ['app[^0-9].registry.io', 'app7.registry.io/x', 'in the class'],
  ['app[\\d].registry.io', 'app7.registry.io/x', 'the letter d'],
  ['a\\*.registry.io', 'app.registry.io/x', 'a star that stands for itself'],
  ['evil.io', 'registry.io/evil.io', 'a path is not a host'],
]

test('an image matches as it does for kubelet', () => {
  for (const [pattern, image] of MATCHING) {
    assert.equal(parseImagePattern(pattern)?.matches(image), true, `${pattern} ${image}`)
  }
})

test('another image does not', () => {
  for (const [pattern, image, why] of DIFFERENT) {
    const parsed = parseImagePattern(pattern)
    if (pattern !== 'registry.io:*') assert.notEqual(parsed, undefined, pattern)
    assert.notEqual(parsed?.matches(image), true, `${pattern} ${image}: ${why}`)
  }
})

test('what is no pattern is none', () => {
  for (const text of ['', '/path', 'user@registry.io', 'a b', 'app[.io', 'app[].io', 'app[z-a].io', 'app\\']) {
    assert.equal(parseImagePattern(text), undefined, text)
  }
})
