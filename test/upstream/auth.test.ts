import assert from 'node:assert/strict'
import { test } from 'node:test'
import { errorCode, type ShoalError } from '../../src/core/index.ts'
import { basic, bytesOf, digestOf, generatedBlob, startScriptedOrigin } from '../support/scripted-origin.ts'
import { keyOf, metric, openRig, readRange, REPOSITORY, spelled } from './rig.ts'

const BLOB = generatedBlob(100_000, 21)
const BYTES = bytesOf(BLOB)
const DIGEST = digestOf(BLOB)
const KEY = keyOf(DIGEST)
const blobs = new Map([[DIGEST, BLOB]])
const NODE = { username: 'node', password: 'the-password-of-the-node' }
const ALICE = basic('alice', 'the-password-of-alice')
const users = { node: NODE.password, alice: 'the-password-of-alice' }

const onlyNode = (user: string | undefined): boolean => user === 'node'
const onlyAlice = (user: string | undefined): boolean => user === 'alice'

interface RefusedDetails {
  readonly status: number
  readonly wwwAuthenticate: readonly string[]
  readonly body?: string
}

async function refusal(work: Promise<unknown>): Promise<RefusedDetails> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  assert.equal(errorCode(error), 'ERR_UPSTREAM_AUTH', String(error))
  return (error as ShoalError).details as unknown as RefusedDetails
}

test('an open registry is public', async () => {
  await using rig = await openRig({ blobs }, NODE)
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'public')
  assert.equal(rig.origin.requests[0]!.headers.authorization, undefined, 'nothing is sent that was not asked for')
})

test('an anonymous token is fetched once for a repository, and what it opens is public', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token' } })
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'public')
  assert.ok((await readRange(rig.registry, DIGEST, { start: 5, end: 5_000 })).equals(BYTES.subarray(5, 5_000)))
  assert.deepEqual(
    rig.origin.requests.map(({ kind }) => kind),
    ['blob', 'token', 'blob', 'blob'],
  )
  const token = new URL(rig.origin.requests[1]!.url, rig.origin.url)
  assert.deepEqual(
    [...token.searchParams],
    [
      ['service', 'scripted'],
      ['scope', `repository:${REPOSITORY}:pull`],
    ],
  )
  assert.equal(rig.origin.requests[1]!.headers.authorization, undefined)
  assert.equal(await metric(rig.metrics, 'shoal_upstream_token_requests_total', { outcome: 'success' }), 1)
})

test('a token for the node’s own credential makes what it opens shared', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token', users, mayPull: onlyNode } }, NODE)
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared')
  const token = rig.origin.requests.find(({ kind }) => kind === 'token')
  assert.equal(token!.headers.authorization, basic(NODE.username, NODE.password))
  for (const { headers, kind } of rig.origin.requests) {
    if (kind !== 'token') assert.doesNotMatch(headers.authorization ?? '', /^Basic/)
  }
})

test('Basic is answered with the node’s own credential', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'basic', users } }, NODE)
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared')
  await rig.registry.stat(KEY)
  assert.equal(rig.origin.requests.length, 3, 'sent along at once the second time')
})

test('credentials come from the keychain where the options have none, by host or by name', async () => {
  const found = { username: NODE.username, password: NODE.password }
  for (const wanted of ['host', 'name']) {
    const asked: string[] = []
    const keychain = {
      get: (name: string) => {
        asked.push(name)
        return asked.length === (wanted === 'host' ? 1 : 2) ? found : undefined
      },
    }
    await using rig = await openRig({ blobs, auth: { kind: 'basic', users } }, { keychain })
    assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared')
    assert.deepEqual(asked, [rig.origin.host, 'registry.test'].slice(0, asked.length))
  }
})

test('many readers that need the same token cause one request for it', async () => {
  await using rig = await openRig({
    blobs,
    auth: { kind: 'token' },
    fault: ({ kind }) => (kind === 'token' ? { delayMs: 30 } : undefined),
  })
  await Promise.all(
    Array.from({ length: 8 }, (_, nth) => readRange(rig.registry, DIGEST, { start: nth, end: nth + 100 })),
  )
  assert.equal(rig.origin.count('token'), 1)
})

test('each repository has a token of its own', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token' } })
  await rig.registry.stat(KEY)
  await rig.registry.stat(keyOf(DIGEST, 'other/repository'))
  assert.equal(rig.origin.count('token'), 2)
})

test('a token is fetched anew before it expires', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token', tokenSeconds: 100 } })
  await rig.registry.stat(KEY)
  rig.clock.time += 89_000
  await rig.registry.stat(KEY)
  assert.equal(rig.origin.count('token'), 1)
  rig.clock.time += 2_000
  await rig.registry.stat(KEY)
  assert.equal(rig.origin.count('token'), 2)
  assert.equal(rig.origin.count('blob'), 4, 'one refusal, at the very beginning')
})

test('a token without a stated life lasts a minute', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token', tokenAnswer: { expires_in: undefined } } })
  await rig.registry.stat(KEY)
  rig.clock.time += 53_000
  await rig.registry.stat(KEY)
  assert.equal(rig.origin.count('token'), 1)
  rig.clock.time += 2_000
  await rig.registry.stat(KEY)
  assert.equal(rig.origin.count('token'), 2)
})

test('a token that has been revoked is replaced once', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token' } })
  await rig.registry.stat(KEY)
  rig.origin.auth.revokeTokens()
  assert.equal((await rig.registry.stat(KEY))?.size, BLOB.size)
  assert.equal(rig.origin.count('token'), 2)
})

test('a registry that refuses every token is asked with nothing, a kept one and a new one, and no more', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token' } })
  const challenge = `Bearer realm="${rig.origin.url}/token",scope="the same for all"`
  rig.origin.auth.options = { kind: 'token', challenge }
  await refusal(rig.registry.stat(KEY))
  const before = rig.origin.count('blob')
  await refusal(rig.registry.stat(keyOf(DIGEST, 'other/repository')))
  assert.deepEqual(
    rig.origin.requests
      .filter(({ kind }) => kind === 'blob')
      .slice(before)
      .map(({ headers }) => headers.authorization),
    [undefined, 'Bearer token-number-1', 'Bearer token-number-2'],
  )
})

test('access_token is as good as token', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token' } })
  rig.origin.auth.options = {
    kind: 'token',
    tokenAnswer: { token: undefined, access_token: rig.origin.auth.tokenFor(undefined, REPOSITORY) },
  }
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'public')
})

test('a token service that fails for a moment is asked again', async () => {
  await using rig = await openRig({
    blobs,
    auth: { kind: 'token' },
    fault: ({ kind, nth }) => (kind === 'token' && nth < 2 ? { status: 503 } : undefined),
  })
  assert.equal((await rig.registry.stat(KEY))?.size, BLOB.size)
  assert.equal(await metric(rig.metrics, 'shoal_upstream_token_requests_total', { outcome: 'failed' }), 2)
})

test('a token service that stays broken is a failure of the origin, not a refusal', async () => {
  await using rig = await openRig(
    { blobs, auth: { kind: 'token' }, fault: ({ kind }) => (kind === 'token' ? { status: 500 } : undefined) },
    { retries: 1 },
  )
  await assert.rejects(rig.registry.stat(KEY), (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_STATUS')
})

test('answers of a token service that are no tokens are refused and never quoted', async () => {
  const answers = [
    { body: 'half-a-secret-token' },
    { body: '[]' },
    { body: '{"token":""}' },
    { body: '{"token":17}' },
    { body: JSON.stringify({ token: 'line\r\nx-injected: half-a-secret-token' }) },
    { body: JSON.stringify({ token: 'x'.repeat(20_000) }) },
  ]
  for (const { body } of answers) {
    await using rig = await openRig({
      blobs,
      auth: { kind: 'token' },
      fault: ({ kind }) => (kind === 'token' ? { status: 200, body } : undefined),
    })
    const { status, wwwAuthenticate } = await refusal(rig.registry.stat(KEY))
    assert.equal(status, 401)
    assert.match(wwwAuthenticate[0]!, /^Bearer realm=/)
    assert.doesNotMatch(rig.log.lines.join('\n'), /half-a-secret/)
  }
})

test('an endless answer of a token service is cut off', async () => {
  await using rig = await openRig({
    blobs,
    auth: { kind: 'token' },
    fault: ({ kind }) => (kind === 'token' ? { status: 200, body: `{"token":"${'x'.repeat(100_000)}"}` } : undefined),
  })
  await assert.rejects(rig.registry.stat(KEY), (error: unknown) => errorCode(error) === 'ERR_LIMIT_EXCEEDED')
})

test('a token service that redirects is not followed', async () => {
  await using elsewhere = await startScriptedOrigin()
  await using rig = await openRig(
    {
      blobs,
      auth: { kind: 'token', users },
      fault: ({ kind }) =>
        kind === 'token' ? { status: 307, headers: { location: `${elsewhere.url}/token` } } : undefined,
    },
    NODE,
  )
  await refusal(rig.registry.stat(KEY))
  assert.equal(elsewhere.requests.length, 0)
})

test('no credential, and no question, goes to a realm that is not the registry’s own', async () => {
  await using evil = await startScriptedOrigin({ address: '127.0.0.2' })
  await using rig = await openRig({ blobs, auth: { kind: 'token', users, realm: `${evil.url}/token` } }, NODE)
  const { status, wwwAuthenticate } = await refusal(rig.registry.stat(KEY))
  assert.equal(status, 401)
  assert.match(wwwAuthenticate[0]!, /127\.0\.0\.2/)
  assert.equal(evil.requests.length, 0)
  assert.ok(rig.log.lines.some(line => line.includes('no token to be had')))
})

test('of several challenges the one that can be answered is', async () => {
  const challenge = ['Negotiate', 'Basic realm="first"', 'Bearer service="without a realm"']
  await using rig = await openRig({ blobs, auth: { kind: 'basic', users, challenge } }, NODE)
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared')
})

test('Basic is used where the realm beside it is not to be trusted', async () => {
  const challenge = 'Bearer realm="https://evil.example/token", Basic realm="x"'
  await using rig = await openRig({ blobs, auth: { kind: 'basic', users, challenge } }, NODE)
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared')
})

test('a scope is made where the challenge names none', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token' } })
  rig.origin.auth.options = { kind: 'token', challenge: `Bearer realm="${rig.origin.url}/token"` }
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'public')
  assert.match(rig.origin.requests[1]!.url, /scope=repository%3Alibrary%2Ftest%3Apull$/)
})

test('what refuses everybody is passed up with the challenge as it came', async () => {
  const challenge = ['Basic realm="a \\"b\\""', 'Bearer  realm="https://elsewhere.example/t" ,scope="x"']
  await using rig = await openRig({ blobs, auth: { kind: 'basic', users, challenge } })
  const { body, status, wwwAuthenticate } = await refusal(rig.registry.stat(KEY))
  assert.equal(status, 401)
  assert.deepEqual(wwwAuthenticate, challenge)
  assert.equal(body, undefined, 'HEAD has no body')
  assert.equal(
    (await refusal(rig.registry.open(KEY, { start: 0, end: 1 }))).body,
    '{"errors":[{"code":"UNAUTHORIZED"}]}',
  )
})

test('a 403 is a refusal, too', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ status: 403, body: 'no' }) }, NODE)
  const { body, status, wwwAuthenticate } = await refusal(rig.registry.open(KEY, { start: 0, end: 1 }))
  assert.deepEqual({ body, status, wwwAuthenticate }, { body: 'no', status: 403, wwwAuthenticate: [] })
})

test('a refusal whose body is long, or breaks off, is a refusal without one', async () => {
  for (const fault of [
    { status: 401, body: 'x'.repeat(5_000) },
    { status: 401, body: 'short', headers: { 'content-length': '50' } },
  ]) {
    await using rig = await openRig({ blobs, fault: () => fault }, { idleTimeoutMs: 60 })
    const { body, status } = await refusal(rig.registry.open(KEY, { start: 0, end: 1 }))
    assert.deepEqual({ body, status }, { body: undefined, status: 401 })
  }
})

test('the caller’s own header is tried, exactly as it came, when nothing else suffices', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'basic', users, mayPull: onlyAlice } }, NODE)
  const info = await rig.registry.stat(KEY, { authorization: ALICE })
  assert.equal(info?.visibility, 'private')
  assert.deepEqual(
    rig.origin.requests.map(({ headers }) => headers.authorization),
    [undefined, basic(NODE.username, NODE.password), ALICE],
  )
})

test('the caller’s own token is sent to the registry and to no realm', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token', users, mayPull: onlyAlice } })
  const token = `Bearer ${rig.origin.auth.tokenFor('alice', REPOSITORY)}`
  assert.equal((await rig.registry.stat(KEY, { authorization: token }))?.visibility, 'private')
  const sent = rig.origin.requests.filter(({ headers }) => headers.authorization === token)
  assert.deepEqual(
    sent.map(({ kind }) => kind),
    ['blob'],
  )
})

test('the caller’s header is not used where the registry is open without it', async () => {
  await using rig = await openRig({ blobs })
  assert.equal((await rig.registry.stat(KEY, { authorization: ALICE }))?.visibility, 'public')
  assert.equal(rig.origin.requests[0]!.headers.authorization, undefined)
})

test('a repository that refused us is asked with the caller’s header at once, for five minutes', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token', users, mayPull: onlyAlice } })
  const options = { authorization: `Bearer ${rig.origin.auth.tokenFor('alice', REPOSITORY)}` }
  await rig.registry.stat(KEY, options)
  const asked = rig.origin.count('blob')
  await rig.registry.stat(KEY, options)
  assert.equal(rig.origin.count('blob'), asked + 1)

  rig.origin.auth.options = { kind: 'none' }
  rig.clock.time += 5 * 60_000 + 1
  assert.equal((await rig.registry.stat(KEY, options))?.visibility, 'public')
})

test('when the caller is refused as well, it hears what the registry said to it', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'basic', users, mayPull: () => false } }, NODE)
  const { status, wwwAuthenticate } = await refusal(rig.registry.stat(KEY, { authorization: ALICE }))
  assert.equal(status, 401)
  assert.deepEqual(wwwAuthenticate, ['Basic realm="scripted"'])
})

test('a node credential that is no longer good leaves the registry’s challenge to the caller', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token', users, mayPull: onlyNode } }, NODE)
  await rig.registry.stat(KEY)
  rig.origin.auth.revokeTokens()
  rig.origin.auth.options = { kind: 'token', users: {} }
  rig.clock.time += 3_600_000
  const { wwwAuthenticate } = await refusal(rig.registry.stat(KEY))
  assert.match(wwwAuthenticate[0]!, /^Bearer realm=/)
})

test('a registry that repeats a credential does not get it into an error', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'basic', users: {}, challenge: 'Basic realm="x"' } }, NODE)
  rig.origin.fault = ({ headers }) => {
    const sent = headers.authorization
    if (sent === undefined) return undefined
    const password = Buffer.from(sent.slice('Basic '.length), 'base64').toString().split(':')[1]
    return {
      status: 401,
      body: `{"you sent":"${sent}"}`,
      headers: { 'www-authenticate': ['Basic realm="x"', `Echo ${password}`] },
    }
  }
  const work = rig.registry.open(KEY, { start: 0, end: 1 }, { authorization: ALICE })
  const { body, wwwAuthenticate } = await refusal(work)
  assert.equal(body, undefined)
  assert.deepEqual(wwwAuthenticate, ['Basic realm="x"'])
})

test('no secret reaches a log line or an error, whatever goes wrong', async () => {
  const secrets = [
    NODE.password,
    basic(NODE.username, NODE.password).slice(6),
    'the-password-of-alice',
    ALICE.slice(6),
    'token-number-',
  ]
  const cdn = await startScriptedOrigin({ blobs })
  await using rig = await openRig({ cdn, auth: { kind: 'token', users, mayPull: onlyAlice } }, { ...NODE, retries: 1 })
  const thrown: unknown[] = []
  const attempt = async (): Promise<void> => {
    const token = `Bearer ${rig.origin.auth.tokenFor('alice', REPOSITORY)}`
    for (const authorization of [token, ALICE, undefined]) {
      const options = authorization === undefined ? {} : { authorization }
      await readRange(rig.registry, DIGEST, { start: 0, end: 50_000 }, options).catch((error: unknown) =>
        thrown.push(error),
      )
    }
  }
  await attempt()
  rig.origin.fault = ({ kind }) => (kind === 'token' ? { reset: 'before-headers' } : undefined)
  await attempt()
  rig.origin.fault = () => undefined
  cdn.fault = () => ({ reset: 100 })
  await attempt()
  cdn.fault = () => ({ status: 500 })
  await attempt()
  await cdn.close()
  await attempt()
  assert.ok(thrown.length >= 5)
  const said = [...rig.log.lines, ...thrown.map(spelled)].join('\n')
  for (const secret of [...secrets, 'X-Signature', 'signature-']) assert.ok(!said.includes(secret), secret)
})
