import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import path from 'node:path'
import { test } from 'node:test'
import { digestHex, formatContentRange, parseRangeHeader, resolveRange } from '../../../src/core/index.ts'
import { openHttpOrigin, type ObjectOrigin } from '../../../src/upstream/objects/index.ts'
import { bytesOf, digestOf, generatedBlob } from '../../support/generated-blob.ts'
import { basic, startScriptedOrigin, type ScriptedOrigin } from '../../support/scripted-origin.ts'
import { createTestCa } from '../../support/test-ca.ts'
import { skipWithout, temporaryDirectory } from '../../support/tools.ts'
import { collect, keyOf, readRange, spelled, TestClock, TestLog, testDeps } from '../rig.ts'
import { BUCKET, byHex, CONNECTION, HTTP, openObjects, PREFIX } from './rig.ts'

const BLOB = bytesOf(generatedBlob(10_000, 5))
const DIGEST = digestOf(BLOB)
const KEY = keyOf(DIGEST)
const blobs = new Map([[DIGEST, BLOB]])
const LOGIN = { username: 'node', password: 'the-password-of-the-node' }
const FOLDER = `/${BUCKET}/${PREFIX.replace(/\/$/, '')}`
const skipTls = await skipWithout(['openssl'])

function open(url: string, more: object = {}): Promise<ObjectOrigin> {
  return openHttpOrigin(testDeps(), { ...CONNECTION, type: 'http', url, headers: {}, ...more })
}

test('a blob is at <url>/<hex>, however many slashes the URL ends with', async () => {
  await using server = await startScriptedOrigin({ blobs: byHex(blobs) })
  for (const slashes of ['', '/', '//']) {
    await using origin = await open(`${server.url}${FOLDER}${slashes}`)
    assert.equal(origin.name, 'http:registry.test')
    assert.equal((await origin.stat(KEY))?.size, BLOB.length)
    assert.equal(server.requests.at(-1)?.url, `${FOLDER}/${digestHex(DIGEST)}`)
  }
})

test('with nothing to prove who asks, what is read is public', async () => {
  await using rig = await openObjects(HTTP, { blobs })
  assert.equal((await rig.origin.stat(KEY))?.visibility, 'public')
  assert.equal((await rig.origin.begin(KEY, { start: 0, end: 1 }))?.info.visibility, 'public')
})

test('the login and the headers of the configuration are sent, each value a line, and make it shared', async () => {
  const headers = { 'X-Pool': ['one', 'two'], 'User-Agent': ['pool/1'] }
  await using rig = await openObjects(HTTP, { blobs }, { ...LOGIN, headers })
  assert.equal((await rig.origin.stat(KEY))?.visibility, 'shared')
  const seen = rig.server.requests[0]?.headers
  assert.equal(seen?.authorization, basic(LOGIN.username, LOGIN.password))
  assert.equal(seen['x-pool'], 'one, two')
  assert.equal(seen['user-agent'], 'pool/1')
  assert.equal(seen['accept-encoding'], 'identity')
})

test('401 and 403 are refusals with their status, and repeat no secret', async () => {
  for (const status of [401, 403]) {
    await using rig = await openObjects(HTTP, { blobs, fault: () => ({ status }) }, LOGIN)
    for (const asking of [rig.origin.stat(KEY), rig.origin.open(KEY, { start: 0, end: 1 })]) {
      await assert.rejects(asking, (error: unknown) => {
        assert.match(spelled(error), new RegExp(`refused with ${status}\\b.*"status":${status}`, 's'))
        return !spelled(error).includes(LOGIN.password) && !spelled(error).includes('Basic')
      })
    }
    assert.equal(rig.clock.sleeps.length, 0)
  }
})

/** Every request is led to the same path at `to`, with a query that nobody may see. */
function leadTo(from: ScriptedOrigin, to: ScriptedOrigin, status = 302): void {
  from.fault = seen => ({ status, headers: { location: `${to.url}${seen.path}?signature=hunter2` } })
}

test('a redirect is followed, and what is meant for the first host is not sent to the second', async () => {
  await using other = await startScriptedOrigin({ blobs: byHex(blobs) })
  await using rig = await openObjects(HTTP, { blobs }, { ...LOGIN, headers: { 'x-key': ['secret'] } })
  for (const status of [301, 302, 307, 308]) {
    leadTo(rig.server, other, status)
    assert.equal((await rig.origin.stat(KEY))?.size, BLOB.length)
    assert.ok((await readRange(rig.origin, DIGEST, { start: 5, end: 50 })).equals(BLOB.subarray(5, 50)))
  }
  assert.equal(rig.server.requests.length, other.requests.length)
  for (const { headers } of other.requests) {
    assert.equal(headers.authorization, undefined)
    assert.equal(headers['x-key'], undefined)
  }
  for (const { headers } of rig.server.requests) assert.equal(headers['x-key'], 'secret')
})

test('If-Match goes to the host whose ETag it is', async () => {
  await using other = await startScriptedOrigin({
    blobs: byHex(blobs),
    fault: ({ nth }) => ({ headers: { etag: '"of-the-other"' }, ...(nth === 0 ? { truncateAfter: 100 } : {}) }),
  })
  await using rig = await openObjects(HTTP, { blobs })
  leadTo(rig.server, other)
  assert.ok((await readRange(rig.origin, DIGEST, { start: 0, end: 5_000 })).equals(BLOB.subarray(0, 5_000)))
  assert.deepEqual(
    rig.server.requests.map(({ headers }) => headers['if-match']),
    [undefined, undefined],
  )
  assert.deepEqual(
    other.requests.map(({ headers }) => headers['if-match']),
    [undefined, '"of-the-other"'],
  )
})

test('what another host refuses is a status, not a refusal of our rights', async () => {
  await using other = await startScriptedOrigin({ fault: () => ({ status: 403 }) })
  await using rig = await openObjects(HTTP, { blobs })
  leadTo(rig.server, other)
  const failure = { code: 'ERR_UPSTREAM_STATUS', message: new RegExp(`^${other.host} answered 403$`) }
  await assert.rejects(rig.origin.open(KEY, { start: 0, end: 1 }), failure)
  await assert.rejects(rig.origin.stat(KEY), failure)
})

test('the sixth redirect is one too many, and no error holds a URL', async () => {
  await using rig = await openObjects(HTTP, { blobs })
  leadTo(rig.server, rig.server)
  await assert.rejects(rig.origin.stat(KEY), (error: unknown) => {
    assert.match(spelled(error), /ERR_UPSTREAM_STATUS|answered 302/)
    return !spelled(error).includes('hunter2')
  })
  assert.equal(rig.server.requests.length, 6)
})

test('a redirect to nowhere, to another protocol or to the metadata service is refused', async () => {
  await using rig = await openObjects(HTTP, { blobs })
  for (const [location, message] of [
    ['', /answered 302 without a usable Location$/],
    ['http://[', /answered 302 without a usable Location$/],
    ['file:///etc/passwd', /leads to another protocol$/],
    ['http://169.254.169.254/latest', /leads to a link-local address$/],
  ] as const) {
    rig.server.fault = () => ({ status: 302, headers: { location } })
    await assert.rejects(rig.origin.stat(KEY), { code: 'ERR_UPSTREAM_STATUS', message })
  }
})

test('the authorities and the server name of the configuration are used', { skip: skipTls }, async () => {
  await using ca = await createTestCa()
  const tls = await ca.issue(['files.test'])
  await using server = await startScriptedOrigin({ blobs: byHex(blobs), tls })
  const trust = { ca: [ca.caFile], clients: [], skipVerify: false, serverName: 'files.test' }
  await using origin = await open(`${server.url}${FOLDER}`, { tls: trust })
  assert.equal((await origin.stat(KEY))?.size, BLOB.length)
  await using distrustful = await open(`${server.url}${FOLDER}`)
  await assert.rejects(distrustful.stat(KEY), { code: 'ERR_UPSTREAM_TRANSPORT' })
})

test('behind a unix socket the blob is at /, whatever it is called', async () => {
  await using directory = await temporaryDirectory('shoal-socket')
  const socket = path.join(directory.path, 'blob.sock')
  const asked: string[] = []
  const server = http.createServer(({ headers, method, url = '' }, response) => {
    asked.push(`${method ?? ''} ${url} ${headers.host ?? ''}`)
    const spec = parseRangeHeader(headers.range)?.[0]
    const range = spec === undefined ? undefined : resolveRange(spec, BLOB.length)
    const { end, start } = range ?? { start: 0, end: BLOB.length }
    response.writeHead(range === undefined ? 200 : 206, {
      'content-length': end - start,
      ...(range === undefined ? {} : { 'content-range': formatContentRange(range, BLOB.length) }),
    })
    response.end(method === 'HEAD' ? undefined : BLOB.subarray(start, end))
  })
  server.listen(socket)
  await once(server, 'listening')
  try {
    await using origin = await open(`unix:${socket}`)
    const info = await origin.stat(KEY)
    assert.equal(info?.size, BLOB.length)
    assert.equal(info.visibility, 'shared')
    assert.ok((await readRange(origin, DIGEST, { start: 7, end: 77 })).equals(BLOB.subarray(7, 77)))
    const begun = await origin.begin(keyOf(`sha256:${'cd'.repeat(32)}`), { start: 0, end: Infinity })
    assert.ok((await collect(begun?.body)).equals(BLOB))
    assert.deepEqual(asked, ['HEAD / localhost', 'GET / localhost', 'GET / localhost'])
  } finally {
    server.close()
  }
})

test('a server behind a unix socket cannot lead anywhere else', async () => {
  await using other = await startScriptedOrigin({ blobs: byHex(blobs) })
  await using directory = await temporaryDirectory('shoal-socket')
  const socket = path.join(directory.path, 'blob.sock')
  const server = http.createServer((_request, response) => {
    response.writeHead(302, { location: `${other.url}${FOLDER}/${digestHex(DIGEST)}` }).end()
  })
  server.listen(socket)
  await once(server, 'listening')
  try {
    await using origin = await open(`unix:${socket}`)
    await assert.rejects(origin.stat(KEY), { code: 'ERR_UPSTREAM_STATUS', message: 'localhost answered 302' })
    assert.equal(other.connected, 0)
  } finally {
    server.close()
  }
})

test('a socket that nobody listens on is a failure of the transport', async () => {
  await using directory = await temporaryDirectory('shoal-socket')
  await using origin = await open(`unix:${path.join(directory.path, 'none.sock')}`, { retries: 0 })
  await assert.rejects(origin.stat(KEY), { code: 'ERR_UPSTREAM_TRANSPORT', message: /ENOENT/ })
})

test('a configuration that cannot work is refused before anything is asked, and its values are not repeated', async () => {
  const url = 'https://files.example'
  for (const [options, message] of [
    [{ url: 'nonsense' }, /^origins\."registry\.test"\.url is not a URL/],
    [{ url: 'ftp://files.example' }, /url must begin with https/],
    [{ url: 'https://node:hunter2@files.example' }, /url must not hold a credential$/],
    [{ url: 'https://files.example/?key=hunter2' }, /url must not have a query or a fragment$/],
    [{ url: 'https://files.example/#hunter2' }, /url must not have a query or a fragment$/],
    [{ url: 'unix:relative/path' }, /url must have an absolute path after "unix:"$/],
    [{ url, headers: { 'x y': ['hunter2'] } }, /headers has a name or a value that HTTP does not allow$/],
    [{ url, headers: { x: ['hunter2\r\nX-More: 1'] } }, /headers has a name or a value that HTTP does not allow$/],
    [{ url, headers: { Range: ['bytes=0-1'] } }, /headers must not set range$/],
    [{ url, username: 'node' }, /username needs password_file/],
    [{ url, password: 'hunter2' }, /username needs password_file/],
    [{ url, ...LOGIN, headers: { Authorization: ['x'] } }, /headers must not set authorization beside username$/],
    [{ url, tls: { ca: ['/nowhere.pem'], clients: [], skipVerify: false } }, /nowhere\.pem/],
  ] as const) {
    const opening = openHttpOrigin(testDeps(new TestClock(), new TestLog()), {
      ...{ ...CONNECTION, type: 'http', headers: {}, ...options },
    })
    await assert.rejects(opening, (error: unknown) => {
      assert.match(error instanceof Error ? error.message : '', message)
      return !spelled(error).includes('hunter2')
    })
  }
})
