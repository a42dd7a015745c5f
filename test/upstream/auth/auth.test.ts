import assert from 'node:assert/strict'
import { test } from 'node:test'
import { errorCode, type ShoalError } from '../../../src/core/index.ts'
import { basic, bytesOf, digestOf, generatedBlob, startScriptedOrigin } from '../../support/scripted-origin.ts'
import { keyOf, metric, openRig, readRange, REPOSITORY, spelled, type RegistryRig } from '../rig.ts'

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

test('the attempts of one operation are all there are, however its tokens fail', async () => {
  await using rig = await openRig({
    blobs,
    auth: { kind: 'token' },
    fault: ({ kind }) => (kind === 'token' ? { status: 503 } : undefined),
  })
  await assert.rejects(rig.registry.stat(KEY), (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_STATUS')
  assert.equal(rig.origin.count('token'), 4)
  assert.deepEqual(rig.clock.sleeps, [50, 100, 200])
})

test('a token service that asks for patience is waited for ten seconds in all', async () => {
  await using rig = await openRig({
    blobs,
    auth: { kind: 'token' },
    fault: ({ kind }) => (kind === 'token' ? { status: 429, headers: { 'retry-after': '6' } } : undefined),
  })
  await assert.rejects(rig.registry.stat(KEY), (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_STATUS')
  assert.deepEqual(rig.clock.sleeps, [6_050])
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
  rig.origin.auth.options = { kind: 'token', users: {}, mayPull: onlyNode }
  rig.clock.time += 3_600_000
  const { wwwAuthenticate } = await refusal(rig.registry.stat(KEY))
  assert.match(wwwAuthenticate[0]!, /^Bearer realm=/)
})

/** How often the node's password was sent. */
function logins({ origin }: RegistryRig): number {
  const sent = basic(NODE.username, NODE.password)
  return origin.requests.filter(({ headers }) => headers.authorization === sent).length
}

function warnings({ log }: RegistryRig): number {
  return log.lines.filter(line => /^(?:credential refused|no token to be had) /.test(line)).length
}

for (const status of [401, 403]) {
  test(`public images can be had although the token service answers ${status} to the node’s credential`, async () => {
    await using rig = await openRig({ blobs, auth: { kind: 'token' } }, NODE)
    rig.origin.fault = ({ headers, kind }) =>
      kind === 'token' && headers.authorization !== undefined ? { status } : undefined
    assert.equal((await rig.registry.stat(KEY))?.visibility, 'public')
    assert.ok((await readRange(rig.registry, DIGEST, { start: 5, end: 500 })).equals(BYTES.subarray(5, 500)))
    assert.deepEqual(
      rig.origin.requests.filter(({ kind }) => kind === 'token').map(({ headers }) => headers.authorization),
      [basic(NODE.username, NODE.password), undefined],
    )
  })
}

test('a login that a token service refused is not tried again for a minute, and said so once a minute', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token', users: {}, mayPull: onlyNode } }, NODE)
  for (let nth = 0; nth < 5; nth += 1) {
    const { wwwAuthenticate } = await refusal(rig.registry.stat(KEY))
    assert.match(wwwAuthenticate[0]!, /^Bearer realm=/)
  }
  assert.equal(logins(rig), 1)
  assert.equal(warnings(rig), 1)
  assert.match(rig.log.lines.join('\n'), /^credential refused .*answered 401/)

  rig.clock.time += 59_000
  await refusal(rig.registry.stat(KEY))
  assert.equal(logins(rig), 1)
  rig.clock.time += 2_000
  await refusal(rig.registry.stat(KEY))
  assert.equal(logins(rig), 2)
  assert.equal(warnings(rig), 2)

  rig.origin.auth.options = { kind: 'token', users, mayPull: onlyNode }
  rig.clock.time += 61_000
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared', 'the password is right again')
})

test('a login that is refused for one repository is tried for another', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token', users, mayPull: onlyNode } }, NODE)
  rig.origin.fault = ({ kind, url }) =>
    kind === 'token' && url.includes('library%2Ftest') ? { status: 403 } : undefined
  await refusal(rig.registry.stat(KEY))
  assert.equal((await rig.registry.stat(keyOf(DIGEST, 'other/repository')))?.visibility, 'shared')
  assert.equal(logins(rig), 2)
})

test('a login that a registry with Basic refused is not tried again for a minute', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'basic', users: {} } }, NODE)
  for (let nth = 0; nth < 5; nth += 1) {
    assert.deepEqual((await refusal(rig.registry.stat(KEY))).wwwAuthenticate, ['Basic realm="scripted"'])
  }
  assert.equal(logins(rig), 1)
  assert.equal(warnings(rig), 1)
  rig.origin.auth.options = { kind: 'basic', users }
  rig.clock.time += 61_000
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared')
})

test('readers that come while a login is being refused do not repeat it', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token', users: {} } }, NODE)
  rig.origin.fault = ({ kind }) => (kind === 'token' ? { delayMs: 30 } : undefined)
  const infos = await Promise.all(Array.from({ length: 6 }, () => rig.registry.stat(KEY)))
  assert.deepEqual(new Set(infos.map(info => info?.visibility)), new Set(['public']))
  assert.equal(rig.origin.count('token'), 2)
})

test('an anonymous token that has been revoked is replaced without another login', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token', users: {} } }, NODE)
  await rig.registry.stat(KEY)
  rig.origin.auth.revokeTokens()
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'public')
  assert.equal(logins(rig), 1)
  assert.equal(rig.origin.count('token'), 3)
})

test('a token service that fails in another way has not refused the login', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token', users } }, NODE)
  for (const status of [400, 404]) {
    rig.origin.fault = ({ kind }) => (kind === 'token' ? { status } : undefined)
    const before = rig.origin.count('token')
    await refusal(rig.registry.stat(KEY))
    assert.equal(rig.origin.count('token'), before + 1, 'and nobody else is asked for')
  }
  rig.origin.fault = () => undefined
  assert.equal((await rig.registry.stat(KEY))?.visibility, 'shared')
})

test('a realm that is not to be trusted is said so once a minute', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token', realm: 'https://evil.example/token' } })
  for (let nth = 0; nth < 3; nth += 1) await refusal(rig.registry.stat(KEY))
  assert.equal(warnings(rig), 1)
  rig.clock.time += 60_000
  await refusal(rig.registry.stat(KEY))
  assert.equal(warnings(rig), 2)
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
