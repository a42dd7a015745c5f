import assert from 'node:assert/strict'
import { test } from 'node:test'
import { errorCode } from '../../../src/core/index.ts'
import { RedirectMemory, resolveRedirect } from '../../../src/upstream/registry/redirects.ts'
import { openRig, readRange, spelled, TestClock, until, type RegistryRig } from '../rig.ts'
import { basic, bytesOf, digestOf, generatedBlob, startScriptedOrigin } from '../../support/scripted-origin.ts'

const BLOB = generatedBlob(700_000, 3)
const BYTES = bytesOf(BLOB)
const DIGEST = digestOf(BLOB)
const LOGIN = { username: 'node', password: 'the-password-of-the-node' }
const FROM = new URL('https://registry.test/v2/x/blobs/y?a=b')
const SECURE = { registry: new URL('https://registry.test/v2/') }
const PLAIN = { registry: new URL('http://registry.test/v2/') }

test('a Location is resolved against where it came from', () => {
  const resolve = (location: string): string => resolveRedirect(FROM, 307, location, SECURE).href
  assert.equal(resolve('/other?q'), 'https://registry.test/other?q')
  assert.equal(resolve('z'), 'https://registry.test/v2/x/blobs/z')
  assert.equal(resolve('//cdn.test/z'), 'https://cdn.test/z')
  assert.equal(resolve('https://cdn.test:8443/z'), 'https://cdn.test:8443/z')
})

test('a redirect to plain http is followed only for registries that are plain themselves', () => {
  assert.equal(resolveRedirect(FROM, 307, 'http://cdn.test/', PLAIN).href, 'http://cdn.test/')
  assert.throws(
    () => resolveRedirect(FROM, 307, 'http://cdn.test/?sig=secret', SECURE),
    (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_STATUS' && !spelled(error).includes('secret'),
  )
})

test('a redirect to nowhere, or to another protocol, is an error', () => {
  for (const location of [undefined, 'https://', 'file:///etc/passwd', 'data:text/plain,x']) {
    assert.throws(
      () => resolveRedirect(FROM, 302, location, PLAIN),
      (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_STATUS',
      String(location),
    )
  }
})

const LOOPBACK = [
  'http://127.0.0.1:8080/',
  'http://127.9.9.9/',
  'http://2130706433/',
  'http://0x7f.1/',
  'http://127.0.0.1./',
  'http://0.0.0.0:8080/',
  'http://[::1]/',
  'http://[::]/',
  'http://[::ffff:127.0.0.1]/',
  'http://localhost:8080/',
  'http://LOCALHOST./',
  'http://x.localhost/',
]
const LINK_LOCAL = [
  'http://169.254.169.254/latest/meta-data/',
  'http://[::ffff:169.254.169.254]/',
  'http://[fe80::1]/',
  'http://[febf::1]/',
]
const ELSEWHERE = [
  'http://10.0.0.5/',
  'http://128.0.0.1/',
  'http://169.255.0.1/',
  'http://[fec0::1]/',
  'http://mylocalhost/',
]

function leadsTo(location: string, registry: string): boolean {
  try {
    return resolveRedirect(FROM, 307, location, { registry: new URL(registry) }).href === new URL(location).href
  } catch (error: unknown) {
    assert.equal(errorCode(error), 'ERR_UPSTREAM_STATUS')
    return false
  }
}

test('a redirect to this machine, or to its link, is followed only for registries that are there themselves', () => {
  for (const location of [...LOOPBACK, ...LINK_LOCAL]) {
    const secure = location.replace('http:', 'https:')
    assert.ok(!leadsTo(location, 'http://registry.test/v2/'), location)
    assert.ok(!leadsTo(location, 'http://10.0.0.5:5000/v2/'), location)
    assert.ok(!leadsTo(secure, 'https://registry.test/v2/'), secure)
  }
  for (const location of LOOPBACK) {
    assert.ok(leadsTo(location, 'http://localhost:5000/v2/'), location)
    assert.ok(leadsTo(location, 'http://[::1]:5000/v2/'), location)
    assert.ok(!leadsTo(location, 'http://169.254.0.9/v2/'), location)
  }
  for (const location of LINK_LOCAL) {
    assert.ok(leadsTo(location, 'http://169.254.0.9/v2/'), location)
    assert.ok(!leadsTo(location, 'http://127.0.0.1:5000/v2/'), location)
  }
  for (const location of ELSEWHERE) assert.ok(leadsTo(location, 'http://registry.test/v2/'), location)
})

test('a registry that redirects to the link of its clients is not followed', async () => {
  await using rig = await openRig({
    fault: () => ({ status: 307, headers: { location: 'http://169.254.169.254/latest/meta-data/?sig=secret' } }),
  })
  await assert.rejects(readRange(rig.registry, DIGEST, { start: 0, end: 10 }), (error: unknown) => {
    assert.equal(errorCode(error), 'ERR_UPSTREAM_STATUS')
    assert.match(spelled(error), /link-local/)
    return !spelled(error).includes('secret')
  })
  assert.equal(rig.origin.requests.length, 1)
})

test('the end of a redirect is remembered for three minutes at most', () => {
  const clock = new TestClock()
  const memory = new RedirectMemory({ clock })
  const redirect = { url: new URL('https://cdn.test/?sig'), visibility: 'public' } as const
  memory.keep('key', redirect)
  clock.time += 179_000
  assert.equal(memory.get('key'), redirect)
  clock.time += 2_000
  assert.equal(memory.get('key'), undefined)
})

async function openWithCdn(
  options: Parameters<typeof openRig>[0] = {},
  login: object = LOGIN,
): Promise<RegistryRig & { cdn: RegistryRig['origin'] }> {
  const cdn = await startScriptedOrigin({ blobs: new Map([[DIGEST, BLOB]]) })
  const rig = await openRig(
    { cdn, auth: { kind: 'basic', users: { node: LOGIN.password, alice: 'the-password-of-alice' } }, ...options },
    login,
  )
  return {
    ...rig,
    cdn,
    [Symbol.asyncDispose]: async () => {
      await cdn.close()
      await rig[Symbol.asyncDispose]()
    },
  }
}

test('the credential stays with the registry when it redirects to another host', async () => {
  await using rig = await openWithCdn()
  assert.ok((await readRange(rig.registry, DIGEST, { start: 5, end: 10_000 })).equals(BYTES.subarray(5, 10_000)))
  assert.equal(rig.origin.requests.at(-1)!.headers.authorization, basic('node', LOGIN.password))
  assert.equal(rig.cdn.requests.length, 1)
  assert.equal(rig.cdn.requests[0]!.headers.authorization, undefined)
  assert.equal(rig.cdn.requests[0]!.headers.range, 'bytes=5-9999')
  assert.equal(rig.cdn.requests[0]!.headers['accept-encoding'], 'identity')
})

test('a redirect on the same host keeps the credential', async () => {
  await using rig = await openRig(
    {
      blobs: new Map([[DIGEST, BLOB]]),
      auth: { kind: 'basic', users: { node: LOGIN.password } },
      fault: ({ headers, repository }) =>
        repository === 'library/test' && headers.authorization !== undefined
          ? { status: 302, headers: { location: `../../../moved/blobs/${DIGEST}` } }
          : undefined,
    },
    LOGIN,
  )
  assert.ok((await readRange(rig.registry, DIGEST, { start: 0, end: 100 })).equals(BYTES.subarray(0, 100)))
  assert.equal(rig.origin.requests.at(-1)!.path, `/v2/moved/blobs/${DIGEST}`)
  assert.equal(rig.origin.requests.at(-1)!.headers.authorization, basic('node', LOGIN.password))
})

test('a credential that was dropped on the way does not come back with the registry’s own host', async () => {
  await using rig = await openWithCdn()
  const back = `${rig.origin.url}/v2/library/test/blobs/${DIGEST}`
  rig.cdn.fault = () => ({ status: 302, headers: { location: back } })
  await assert.rejects(
    readRange(rig.registry, DIGEST, { start: 0, end: 10 }),
    (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_STATUS',
  )
  assert.equal(rig.origin.requests.at(-1)!.headers.authorization, undefined)
})

test('the signed URL is used again, and the registry is asked anew once it is refused', async () => {
  await using rig = await openWithCdn()
  for (const start of [0, 1_000, 2_000]) {
    await readRange(rig.registry, DIGEST, { start, end: start + 500 })
  }
  const before = rig.origin.count('blob')
  assert.equal(before, 2, 'one without a credential, one with')
  assert.equal(rig.cdn.count('signed'), 3)

  rig.cdn.revokeSignatures()
  assert.ok((await readRange(rig.registry, DIGEST, { start: 9, end: 99 })).equals(BYTES.subarray(9, 99)))
  assert.equal(rig.origin.count('blob'), before + 1)
  assert.equal(rig.cdn.count('signed'), 5)
})

test('a signed URL that goes on working is not used for longer: the registry is asked again after three minutes', async () => {
  await using rig = await openWithCdn()
  const read = (): Promise<Buffer> => readRange(rig.registry, DIGEST, { start: 0, end: 500 })
  await read()
  const before = rig.origin.count('blob')
  for (const minutes of [1, 1]) {
    rig.clock.time += minutes * 60_000
    await read()
  }
  assert.equal(rig.origin.count('blob'), before)
  rig.clock.time += 61_000
  await read()
  assert.equal(rig.origin.count('blob'), before + 1)
})

test('a signed URL that a host refuses at once is an error of the host, not of anybody’s credentials', async () => {
  await using rig = await openWithCdn()
  rig.cdn.fault = () => ({ status: 403, body: '<Error>AccessDenied</Error>' })
  await assert.rejects(
    rig.registry.open({ digest: DIGEST, registry: 'registry.test', repository: 'library/test' }, { start: 0, end: 10 }),
    (error: unknown) => {
      assert.equal(errorCode(error), 'ERR_UPSTREAM_STATUS')
      assert.ok(!spelled(error).includes('X-Signature'))
      return true
    },
  )
})

test('a URL that was signed for one caller is not used for another', async () => {
  await using rig = await openWithCdn(
    {
      auth: {
        kind: 'basic',
        users: { alice: 'the-password-of-alice' },
      },
    },
    {},
  )
  const alice = { authorization: basic('alice', 'the-password-of-alice') }
  await readRange(rig.registry, DIGEST, { start: 0, end: 10 }, alice)
  const signed = rig.cdn.count('signed')
  for (const other of [{}, { authorization: basic('mallory', 'guess') }]) {
    await assert.rejects(
      readRange(rig.registry, DIGEST, { start: 0, end: 10 }, other),
      (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_AUTH',
    )
  }
  assert.equal(rig.cdn.count('signed'), signed)
  const asked = rig.origin.count('blob')
  await readRange(rig.registry, DIGEST, { start: 10, end: 20 }, alice)
  assert.equal(rig.origin.count('blob'), asked, 'her own is used again')
})

test('redirects in a circle are given up after five', async () => {
  await using rig = await openRig({ fault: ({ url }) => ({ status: 302, headers: { location: `${url}x` } }) })
  await assert.rejects(
    readRange(rig.registry, DIGEST, { start: 0, end: 10 }),
    (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_STATUS',
  )
  assert.equal(rig.origin.requests.length, 6)
})

test('bytes that do not match their headers undo the memory of where they came from', async () => {
  await using rig = await openWithCdn()
  await readRange(rig.registry, DIGEST, { start: 0, end: 10 })
  const asked = rig.origin.count('blob')
  rig.cdn.fault = ({ nth }) => (nth === 1 ? { headers: { 'content-range': 'bytes 7-16/700000' } } : undefined)
  await assert.rejects(
    readRange(rig.registry, DIGEST, { start: 0, end: 10 }),
    (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_BODY',
  )
  await readRange(rig.registry, DIGEST, { start: 0, end: 10 })
  assert.equal(rig.origin.count('blob'), asked + 1)
})

test('a failure at the end of a redirect undoes the memory of it as well', async () => {
  await using rig = await openWithCdn()
  await readRange(rig.registry, DIGEST, { start: 0, end: 10 })
  const asked = rig.origin.count('blob')
  rig.cdn.fault = ({ nth }) => (nth === 1 ? { status: 500 } : undefined)
  await readRange(rig.registry, DIGEST, { start: 0, end: 10 })
  assert.equal(rig.origin.count('blob'), asked + 1)
})

test('a caller that leaves does not take the signed URL along', async () => {
  await using rig = await openWithCdn()
  await readRange(rig.registry, DIGEST, { start: 0, end: 10 })
  const asked = rig.origin.count('blob')
  rig.cdn.fault = () => ({ delayMs: 2_000 })
  const controller = new AbortController()
  const reason = new Error('left')
  const reading = readRange(rig.registry, DIGEST, { start: 0, end: 10 }, { signal: controller.signal })
  await until(() => rig.cdn.count('signed') === 2, 'the request has arrived')
  controller.abort(reason)
  await assert.rejects(reading, thrown => thrown === reason)
  rig.cdn.fault = () => undefined
  await readRange(rig.registry, DIGEST, { start: 0, end: 10 })
  assert.equal(rig.origin.count('blob'), asked)
})

test('no signed query reaches the log', async () => {
  await using rig = await openWithCdn()
  rig.cdn.fault = ({ nth }) => (nth === 0 ? { ignoreRange: true } : nth === 1 ? { reset: 1_000 } : undefined)
  await readRange(rig.registry, DIGEST, { start: 100, end: 20_000 })
  assert.ok(rig.log.lines.length > 0)
  assert.ok(!rig.log.lines.join('\n').includes('X-Signature'))
})
