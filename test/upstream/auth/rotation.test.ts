import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Registry } from 'prom-client'
import { errorCode } from '../../../src/core/index.ts'
import {
  fixedCredential,
  openKeychain,
  type Credential,
  type CredentialOptions,
  type Keychain,
  type TrustedSite,
} from '../../../src/upstream/auth/index.ts'
import { RegistryOrigin } from '../../../src/upstream/index.ts'
import {
  basic,
  bytesOf,
  digestOf,
  generatedBlob,
  startScriptedOrigin,
  type ScriptedAuthOptions,
  type ScriptedOrigin,
} from '../../support/scripted-origin.ts'
import { DEFAULTS, keyOf, REPOSITORY, spelled, TestClock, TestLog, type RegistryRig } from '../rig.ts'
import { makePrograms } from './programs.ts'

const BLOB = generatedBlob(1_000, 22)
const DIGEST = digestOf(bytesOf(BLOB))
const KEY = keyOf(DIGEST)
const blobs = new Map([[DIGEST, BLOB]])
const mayPull = (user: string | undefined): boolean => user === 'node'

/** A registry whose credentials come from `keychain`. */
async function openKeyed(
  auth: ScriptedAuthOptions,
  keychain: Keychain,
  alsoTrusted?: TrustedSite,
): Promise<RegistryRig> {
  const origin = await startScriptedOrigin({ blobs, auth })
  const [clock, log, metrics] = [new TestClock(), new TestLog(), new Registry()]
  origin.auth.now = () => clock.now()
  const deps = { clock, log, metrics, keychain, ...(alsoTrusted === undefined ? {} : { alsoTrusted }) }
  const registry = await RegistryOrigin.open(deps, { ...DEFAULTS, host: origin.url })
  return {
    origin,
    registry,
    clock,
    log,
    metrics,
    [Symbol.asyncDispose]: async () => {
      await origin.close()
      await registry.close()
    },
  }
}

/** Answers with `credentials` one after the other: the next one when the one before was refused. */
class Rotating implements Keychain {
  readonly asked: (Credential | undefined)[] = []
  readonly #credentials: Credential[]

  constructor(...credentials: Credential[]) {
    this.#credentials = credentials
  }

  get(_request: object, { refused }: CredentialOptions): Promise<Credential | undefined> {
    this.asked.push(refused)
    if (refused === undefined) return Promise.resolve(this.#credentials[0])
    this.#credentials.shift()
    return Promise.resolve(this.#credentials[0])
  }

  get refusals(): number {
    return this.asked.filter(refused => refused !== undefined).length
  }
}

/** Has the same credential whatever happens to it. */
function constant(credential: Credential): Keychain {
  return { get: (_request, { refused }) => Promise.resolve(refused === undefined ? credential : undefined) }
}

function login(password: string): Credential {
  return { kind: 'password', username: 'node', password }
}

function headersOf({ origin }: RegistryRig, kind: 'blob' | 'token'): (string | undefined)[] {
  return origin.requests.filter(request => request.kind === kind).map(({ headers }) => headers.authorization)
}

for (const kind of ['basic', 'token'] as const) {
  test(`a password that was rotated in the file works at once (${kind})`, async () => {
    await using programs = await makePrograms()
    const write = async (origin: string, password: string): Promise<string> =>
      programs.file('config.json', { auths: { [origin]: { username: 'node', password } } })
    const config = await write('none.test', 'x')
    await using keychain = await openKeychain(
      { log: new TestLog(), clock: new TestClock(), env: programs.env },
      { dockerConfig: config, plugins: [] },
    )
    await using rig = await openKeyed({ kind, users: { node: 'one' }, mayPull, tokenSeconds: 60 }, keychain)
    const { clock, log, origin, registry } = rig
    await write(origin.host, 'one')
    // The keychain's clock stands still, so that nothing but a refusal makes it look again.
    await keychain.get({ host: origin.host, repository: REPOSITORY }, { refused: login('none') })
    assert.equal((await registry.stat(KEY))?.visibility, 'shared')

    origin.auth.options = { kind, users: { node: 'two' }, mayPull, tokenSeconds: 60 }
    origin.auth.revokeTokens()
    clock.time += 3_600_000
    await write(origin.host, 'two')
    assert.equal((await registry.stat(KEY))?.visibility, 'shared')
    const sent = [...headersOf(rig, 'blob'), ...headersOf(rig, 'token')].filter(header => header?.startsWith('Basic'))
    assert.deepEqual(sent.slice(-2), [basic('node', 'one'), basic('node', 'two')])
    assert.equal((await registry.stat(KEY))?.visibility, 'shared')
    assert.doesNotMatch(log.lines.join('\n'), /one|two/)
  })

  test(`a second login is tried and no third, and neither again for a minute (${kind})`, async () => {
    const keychain = new Rotating(login('a'), login('b'), login('c'), login('d'))
    await using rig = await openKeyed({ kind, users: {}, mayPull }, keychain)
    const { clock, log, origin, registry } = rig
    const logins = (): string[] =>
      [...headersOf(rig, 'blob'), ...headersOf(rig, 'token')]
        .filter(header => header?.startsWith('Basic') === true)
        .map(String)
    assert.equal(await registry.stat(KEY).catch(errorCode), 'ERR_UPSTREAM_AUTH')
    assert.deepEqual(logins(), [basic('node', 'a'), basic('node', 'b')])
    assert.equal(keychain.refusals, 1)
    for (let nth = 0; nth < 3; nth += 1) assert.equal(await registry.stat(KEY).catch(errorCode), 'ERR_UPSTREAM_AUTH')
    assert.equal(logins().length, 2)
    assert.equal(keychain.refusals, 1)
    assert.equal(log.lines.filter(line => line.startsWith('credential refused')).length, 1)

    clock.time += 60_001
    origin.auth.options = { kind, users: { node: 'b' }, mayPull }
    assert.equal((await registry.stat(KEY))?.visibility, 'shared')
  })
}

test('what is public can be had although both logins are refused', async () => {
  const keychain = new Rotating(login('a'), login('b'))
  await using rig = await openKeyed({ kind: 'token', users: {} }, keychain)
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'public')
  assert.deepEqual(headersOf(rig, 'token'), [basic('node', 'a'), basic('node', 'b'), undefined])
})

test('a login that has changed is used without any refusal, and tokens of the old one are not', async () => {
  let password = 'one'
  const keychain: Keychain = { get: () => Promise.resolve(login(password)) }
  await using rig = await openKeyed({ kind: 'token', users: { node: 'one' }, mayPull }, keychain)
  await rig.registry.stat(KEY)
  await rig.registry.stat(KEY)
  assert.deepEqual(headersOf(rig, 'token'), [basic('node', 'one')])
  password = 'two'
  rig.origin.auth.options = { kind: 'token', users: { node: 'two' }, mayPull }
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared')
  assert.deepEqual(headersOf(rig, 'token'), [basic('node', 'one'), basic('node', 'two')])
})

const IDENTITY = { kind: 'identity-token', token: 'the-refresh-token+/=' } as const

test('an identity token is exchanged by POST for a token, which is kept', async () => {
  const auth = { kind: 'token', mayPull, refreshTokens: { [IDENTITY.token]: 'node' } } as const
  await using rig = await openKeyed(auth, constant(IDENTITY))
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared')
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared')
  const [token, ...others] = rig.origin.requests.filter(({ kind }) => kind === 'token')
  assert.deepEqual(others, [])
  assert.equal(token?.method, 'POST')
  assert.equal(token.url, '/token', 'nothing of it in the URL')
  assert.equal(token.headers['content-type'], 'application/x-www-form-urlencoded')
  assert.deepEqual(Object.fromEntries(new URLSearchParams(token.body)), {
    grant_type: 'refresh_token',
    client_id: 'shoal',
    service: 'scripted',
    scope: `repository:${REPOSITORY}:pull`,
    refresh_token: IDENTITY.token,
  })
})

for (const status of [400, 401, 403, 404, 405]) {
  test(`a token service that answers ${status} to an identity token has refused it, and what is public can be had`, async () => {
    await using rig = await openKeyed({ kind: 'token' }, constant(IDENTITY))
    rig.origin.fault = ({ method }) => (method === 'POST' ? { status, body: `you sent ${IDENTITY.token}` } : undefined)
    assert.equal((await rig.registry.stat(KEY))?.visibility, 'public')
    assert.equal((await rig.registry.stat(KEY))?.visibility, 'public')
    const posts = rig.origin.requests.filter(({ method }) => method === 'POST')
    assert.equal(posts.length, 1, 'not again for a minute')
    assert.doesNotMatch(rig.log.lines.join('\n'), /the-refresh/)
    rig.clock.time += 60_001
    await rig.registry.stat(KEY)
    assert.equal(rig.origin.requests.filter(({ method }) => method === 'POST').length, 2)
  })
}

test('an identity token is of no use to a registry with Basic, and is not sent', async () => {
  await using rig = await openKeyed({ kind: 'basic', users: { node: 'x' } }, constant(IDENTITY))
  const error: unknown = await rig.registry.stat(KEY).catch((thrown: unknown) => thrown)
  assert.equal(errorCode(error), 'ERR_UPSTREAM_AUTH')
  assert.deepEqual(headersOf(rig, 'blob'), [undefined])
  assert.doesNotMatch(spelled(error), /the-refresh/)
})

test('a registry token is sent as it is, and no service is asked', async () => {
  const source: { token: string } = { token: '' }
  const keychain: Keychain = { get: () => Promise.resolve({ kind: 'bearer', token: source.token }) }
  await using rig = await openKeyed({ kind: 'token', mayPull }, keychain)
  source.token = rig.origin.auth.tokenFor('node', REPOSITORY)
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared')
  await rig.registry.stat(KEY)
  const header = `Bearer ${source.token}`
  assert.deepEqual(headersOf(rig, 'blob'), [undefined, header, header])
  assert.equal(rig.origin.count('token'), 0)
})

test('a registry token is sent whatever the challenge, even one that names a stranger', async () => {
  for (const challenge of ['Basic realm="x"', 'Bearer realm="https://evil.example/token"', 'Other']) {
    const source: { token: string } = { token: '' }
    const keychain: Keychain = { get: () => Promise.resolve({ kind: 'bearer', token: source.token }) }
    await using rig = await openKeyed({ kind: 'token', mayPull, challenge }, keychain)
    source.token = rig.origin.auth.tokenFor('node', REPOSITORY)
    assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared', challenge)
  }
})

test('a registry token that is refused is replaced by another one, or by an anonymous token', async () => {
  const stale = { kind: 'bearer', token: 'stale-registry-token' } as const
  await using renewed = await openKeyed(
    { kind: 'token', users: { node: 'b' }, mayPull },
    new Rotating(stale, login('b')),
  )
  assert.equal((await renewed.registry.stat(KEY))?.visibility, 'shared')
  await using anonymous = await openKeyed({ kind: 'token' }, constant(stale))
  assert.equal((await anonymous.registry.stat(KEY))?.visibility, 'public')
  assert.equal((await anonymous.registry.stat(KEY))?.visibility, 'public')
  const sent = headersOf(anonymous, 'blob').filter(header => header === `Bearer ${stale.token}`)
  assert.equal(sent.length, 1, 'not again for a minute')
})

test('a keychain that is closed, or a caller that leaves, is not taken for a refusal', async () => {
  const closed = await openKeychain(
    { log: new TestLog(), clock: new TestClock(), env: { HOME: '/nowhere' } },
    { dockerConfig: '', plugins: [] },
  )
  await closed.close()
  await using rig = await openKeyed({ kind: 'token', users: {} }, closed)
  assert.equal(await rig.registry.stat(KEY).catch(errorCode), 'ERR_CLOSED')
  await using pending = await openKeyed(
    { kind: 'token', users: {} },
    {
      get: (_request, { signal }) =>
        new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason as Error))),
    },
  )
  const controller = new AbortController()
  const reason = new Error('left')
  pending.origin.fault = () => {
    setImmediate(() => controller.abort(reason))
    return undefined
  }
  await assert.rejects(pending.registry.stat(KEY, { signal: controller.signal }), reason)
})

interface Relay extends AsyncDisposable {
  readonly rig: RegistryRig
  readonly registry: ScriptedOrigin
}

/** A mirror at 127.0.0.1 that relays the challenges of a registry at 127.0.0.2, whose login is `owner`. */
async function openRelay(owner: Credential, scope = `repository:${REPOSITORY}:pull`): Promise<Relay> {
  const auth = { kind: 'token', users: { owner: 'o' } } as const
  const registry = await startScriptedOrigin({ address: '127.0.0.2', auth })
  const alsoTrusted = { base: new URL(`${registry.url}/v2/`), credentials: fixedCredential(owner) }
  const challenge = `Bearer realm="${registry.url}/token",service="s",scope="${scope}"`
  const rig = await openKeyed({ kind: 'token', challenge }, constant(login('mirror')), alsoTrusted)
  registry.auth.now = () => rig.clock.now()
  // The mirror accepts what the registry's token service has given out.
  rig.origin.fault = ({ headers, kind }) =>
    kind === 'blob' && headers.authorization === 'Bearer token-number-1' ? { status: 404 } : undefined
  return {
    rig,
    registry,
    [Symbol.asyncDispose]: async () => {
      await rig[Symbol.asyncDispose]()
      await registry.close()
    },
  }
}

const OWNER = { kind: 'password', username: 'owner', password: 'o' } as const

test('a mirror that relays the registry’s challenge gets a token for the registry’s own login', async () => {
  await using relay = await openRelay(OWNER)
  const { registry, rig } = relay
  assert.equal(await rig.registry.stat(KEY), undefined)
  assert.deepEqual(
    registry.requests.map(({ headers, kind }) => [kind, headers.authorization]),
    [['token', basic('owner', 'o')]],
  )
  assert.deepEqual(headersOf(rig, 'blob'), [undefined, 'Bearer token-number-1'])
})

test('a mirror cannot have a token for more than the repository that is wanted', async () => {
  await using relay = await openRelay(OWNER, 'repository:secret/other:pull,push')
  const { registry, rig } = relay
  await rig.registry.stat(KEY)
  const url = new URL(registry.requests[0]!.url, registry.url)
  assert.deepEqual(url.searchParams.getAll('scope'), [`repository:${REPOSITORY}:pull`])
})

test('a mirror does not get to see the registry’s own registry token', async () => {
  await using relay = await openRelay({ kind: 'bearer', token: 'the-registry-token' })
  const { registry, rig } = relay
  await rig.registry.stat(KEY).catch(() => undefined)
  assert.doesNotMatch(JSON.stringify([rig.origin.requests, registry.requests]), /the-registry-token/)
  assert.deepEqual(
    registry.requests.map(({ headers }) => headers.authorization),
    [undefined],
  )
})

test('a realm on the mirror’s own site gets the mirror’s login', async () => {
  const alsoTrusted = {
    base: new URL('https://127.0.0.2/v2/'),
    credentials: fixedCredential(login('owner')),
  }
  const auth = { kind: 'token', users: { node: 'mirror' }, mayPull } as const
  await using rig = await openKeyed(auth, constant(login('mirror')), alsoTrusted)
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared')
  assert.deepEqual(headersOf(rig, 'token'), [basic('node', 'mirror')])
})

test('a realm that belongs to neither gets nothing', async () => {
  await using evil = await startScriptedOrigin({ address: '127.0.0.3' })
  const alsoTrusted = {
    base: new URL('http://127.0.0.2/v2/'),
    credentials: fixedCredential(login('owner')),
  }
  const auth = { kind: 'token', realm: `${evil.url}/token` } as const
  await using rig = await openKeyed(auth, constant(login('mirror')), alsoTrusted)
  assert.equal(await rig.registry.stat(KEY).catch(errorCode), 'ERR_UPSTREAM_AUTH')
  assert.equal(evil.requests.length, 0)
})
