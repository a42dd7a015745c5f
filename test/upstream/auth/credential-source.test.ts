import assert from 'node:assert/strict'
import { test } from 'node:test'
import { normaliseRegistry } from '../../../src/core/index.ts'
import { credentialsFor, fixedCredential, type Credential, type Keychain } from '../../../src/upstream/auth/index.ts'
import {
  basicAuthorization,
  credentialId,
  isSameCredential,
  loginCredential,
  tokenCredential,
} from '../../../src/upstream/auth/credential.ts'
import { planRegistry, RegistryOrigin } from '../../../src/upstream/registry/registry-origin.ts'
import { DEFAULTS, testDeps } from '../rig.ts'

const LOGIN = { kind: 'password', username: 'node', password: 'p' } as const

/** What a registry of this name, at this host, is given by a keychain that has one login, for `login`. */
async function given(name: string, host: string, login: string, own: object = {}): Promise<string | undefined> {
  const keychain: Keychain = {
    get: request => Promise.resolve(normaliseRegistry(request.host) === normaliseRegistry(login) ? LOGIN : undefined),
  }
  const plan = await planRegistry({ ...DEFAULTS, name, host, ...own })
  await using origin = new RegistryOrigin({ ...testDeps(), keychain }, plan)
  const credential = await origin.trust.credentials?.get('team/app', {})
  return credential?.kind === 'password' ? credential.username : undefined
}

test('a login goes to the host that it was given for, and by a name only to the name’s own host', async () => {
  // Its own host, by either.
  assert.equal(await given('docker.io', 'https://registry-1.docker.io', 'docker.io'), 'node')
  assert.equal(await given('docker.io', 'https://registry-1.docker.io', 'registry-1.docker.io'), 'node')
  assert.equal(await given('ghcr.io', 'https://ghcr.io', 'ghcr.io'), 'node')
  // Somebody else's, under its name.
  assert.equal(await given('docker.io', 'http://10.0.0.5:5000', 'docker.io'), undefined)
  assert.equal(await given('docker.io', 'https://mirror.test', 'docker.io'), undefined)
  assert.equal(await given('docker.io', 'https://ghcr.io', 'docker.io'), undefined)
  assert.equal(await given('x.test', 'https://mirror.test', 'x.test'), undefined)
  assert.equal(await given('x.test', 'https://registry-1.docker.io', 'x.test'), undefined)
  assert.equal(await given('constructor', 'https://mirror.test', 'constructor'), undefined)
  // Its own, in clear.
  assert.equal(await given('docker.io', 'http://registry-1.docker.io', 'docker.io'), undefined)
  assert.equal(await given('docker.io', 'http://registry-1.docker.io', 'registry-1.docker.io'), undefined)
  // A login for that very host, or one that was configured for it, is meant for it.
  assert.equal(await given('docker.io', 'http://10.0.0.5:5000', '10.0.0.5:5000'), 'node')
  assert.equal(await given('x.test', 'https://mirror.test', 'mirror.test'), 'node')
  const own = { username: 'other', password: 'x' }
  assert.equal(await given('docker.io', 'http://10.0.0.5:5000', 'docker.io', own), 'other')
})

test('what is configured for a registry stands alone', async () => {
  const own = { username: 'other', password: 'x' }
  assert.equal(await given('x.test', 'https://x.test', 'x.test', own), 'other')
  assert.equal(await given('x.test', 'https://x.test', 'x.test', { username: 'other', password: '' }), 'node')
})

test('no login is ever given to a registry that is public or each caller’s own business', async () => {
  const own = { username: 'other', password: 'x' }
  for (const visibility of ['public', 'private']) {
    assert.equal(await given('x.test', 'https://x.test', 'x.test', { visibility }), undefined)
    assert.equal(await given('x.test', 'https://x.test', 'x.test', { visibility, ...own }), undefined)
  }
  assert.equal(await given('x.test', 'https://x.test', 'x.test', { visibility: 'shared' }), 'node')
})

test('a plan is the same whatever the keychain holds', async () => {
  const plan = await planRegistry({ ...DEFAULTS, host: 'https://x.test', username: 'u', password: 'p' })
  assert.deepEqual(plan.credential, { kind: 'password', username: 'u', password: 'p' })
  assert.ok(!('keychain' in plan))
})

test('the keychain is told the repository, the refused credential and the caller’s signal', async () => {
  const asked: unknown[] = []
  const keychain: Keychain = {
    get: (request, options) => {
      asked.push([request, options])
      return Promise.resolve(undefined)
    },
  }
  const options = { refused: LOGIN, signal: new AbortController().signal }
  await credentialsFor(keychain, new URL('https://x.test:5000/v2/'))?.get('team/app', options)
  assert.deepEqual(asked, [[{ host: 'x.test:5000', repository: 'team/app' }, options]])
})

test('a configured login that was refused has no other in its place', async () => {
  const source = fixedCredential(LOGIN)
  assert.equal(await source.get('a', {}), LOGIN)
  assert.equal(await source.get('a', { refused: LOGIN }), undefined)
})

test('credentials are told apart by all that they hold, and not by more', () => {
  const different: Credential[] = [
    LOGIN,
    { ...LOGIN, username: 'nodep', password: '' },
    { ...LOGIN, password: 'q' },
    { kind: 'bearer', token: 'p' },
    { kind: 'identity-token', token: 'p' },
  ]
  assert.equal(new Set(different.map(credentialId)).size, different.length)
  assert.ok(isSameCredential(LOGIN, { password: 'p', username: 'node', kind: 'password' }))
  assert.ok(isSameCredential(undefined, undefined))
  assert.ok(!isSameCredential(LOGIN, undefined))
  assert.ok(!credentialId({ ...LOGIN, password: 'hunter2' }).includes('hunter2'))
})

test('what is not complete, or not for a header, is no credential', () => {
  assert.equal(loginCredential('u', ''), undefined)
  assert.equal(loginCredential('', 'a b'), undefined)
  assert.deepEqual(loginCredential('', 'token'), { kind: 'bearer', token: 'token' })
  for (const token of ['', 'a b', 'a\r\nb', 'é']) assert.equal(tokenCredential('bearer', token), undefined)
  assert.equal(basicAuthorization(LOGIN), 'Basic bm9kZTpw')
})
