import assert from 'node:assert/strict'
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { test } from 'node:test'
import fc from 'fast-check'
import { errorCode, rangeLength, ShoalError, type ByteRange, type ErrorCode } from '../../../src/core/index.ts'
import { RegistryOrigin } from '../../../src/upstream/index.ts'
import { bytesOf, digestOf, generatedBlob, type Fault } from '../../support/scripted-origin.ts'
import { collect, DEFAULTS, keyOf, metric, openRig, readRange, testDeps, until, type RegistryRig } from '../rig.ts'

const SIZE = 900_000
const BLOB = generatedBlob(SIZE, 11)
const BYTES = bytesOf(BLOB)
const DIGEST = digestOf(BLOB)
const blobs = new Map([[DIGEST, BLOB]])

function failsWith(code: ErrorCode, check: (error: ShoalError) => boolean = () => true) {
  return (error: unknown): boolean => {
    assert.equal(errorCode(error), code, String(error))
    return error instanceof ShoalError && check(error)
  }
}

test('a range is asked for exactly, and nothing but it is sent', async () => {
  await using rig = await openRig({ blobs })
  const bytes = await readRange(rig.registry, DIGEST, { start: 300_000, end: 300_777 })
  assert.ok(bytes.equals(BYTES.subarray(300_000, 300_777)))
  const [request] = rig.origin.requests
  assert.equal(request!.headers.range, 'bytes=300000-300776')
  assert.equal(request!.headers['accept-encoding'], 'identity')
  assert.equal(request!.headers.authorization, undefined)
  assert.equal(rig.origin.bytesSent.get(DIGEST), 777)
  assert.equal(await metric(rig.metrics, 'shoal_upstream_bytes_total'), 777)
  assert.equal(await metric(rig.metrics, 'shoal_upstream_requests_total', { outcome: 'success' }), 1)
})

test('a range beyond 4 GiB of a generated blob is exact', async () => {
  const large = generatedBlob(8 * 2 ** 30, 5)
  const digest = `sha256:${'8'.repeat(64)}`
  await using rig = await openRig({ blobs: new Map([[digest, large]]) })
  const start = 2 ** 32 + 12_345
  assert.ok(
    (await readRange(rig.registry, digest, { start, end: start + 99_999 })).equals(
      bytesOf(large, start, start + 99_999),
    ),
  )
  assert.equal((await rig.registry.stat(keyOf(digest)))?.size, 8 * 2 ** 30)
})

test('connections are used again after bodies that were read to their end', async () => {
  await using rig = await openRig({ blobs })
  for (let start = 0; start < 10_000; start += 1_000) {
    await readRange(rig.registry, DIGEST, { start, end: start + 1_000 })
    await rig.registry.stat(keyOf(DIGEST))
  }
  // Two for bodies and two for the rest, since a connection that has just ended an answer rests for one turn of the event loop.
  assert.ok(rig.origin.connected <= 4, `${rig.origin.connected} connections`)
})

test('no more connections are opened to a host than allowed', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ delayMs: 5 }) }, { maxConnections: 3 })
  await Promise.all(
    Array.from({ length: 10 }, async (_, nth) => {
      await Promise.all([
        readRange(rig.registry, DIGEST, { start: nth, end: 1_000 }),
        rig.registry.stat(keyOf(DIGEST, `repository-${nth}`)),
      ])
    }),
  )
  assert.equal(rig.origin.mostRunning, 3)
})

test('bodies that nobody pulls keep nobody from tokens, sizes, manifests and listings', async () => {
  const size = 64 * 2 ** 20
  const digest = `sha256:${'d'.repeat(64)}`
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  const manifest = { mediaType, body: Buffer.from('{}') }
  const auth = { kind: 'token' } as const
  for (const [maxConnections, forBodies] of [
    [1, 1],
    [2, 1],
    [16, 12],
  ] as const) {
    await using rig = await openRig(
      { blobs: new Map([[digest, generatedBlob(size, 6)]]), manifests: new Map([['latest', manifest]]), auth },
      { maxConnections, retries: 0 },
    )
    const leave = new AbortController()
    let held = 0
    // As many as there may be connections: some get none, and wait for one.
    const bodies = Array.from({ length: maxConnections }, async () => {
      await rig.registry.open(keyOf(digest), { start: 0, end: size }, leave)
      held += 1
    })
    try {
      await until(() => held === forBodies, 'the connections for bodies are taken')
      const soon = { signal: AbortSignal.timeout(5_000) }
      const place = { registry: 'registry.test', repository: 'another/repository' }
      assert.equal((await rig.registry.stat(keyOf(digest, place.repository), soon))?.size, size)
      assert.equal((await rig.registry.getManifest({ ...place, reference: { tag: 'latest' } }, soon))?.size, 2)
      assert.equal((await rig.registry.list({ ...place, listing: { kind: 'tags' }, query: '' }, soon)).status, 200)
    } finally {
      leave.abort(new Error('enough'))
      await Promise.allSettled(bodies)
    }
  }
})

test('a body that is reset is resumed at the next byte, and nothing is sent twice', async () => {
  await using rig = await openRig({ blobs, fault: ({ nth }) => (nth < 2 ? { reset: 200_000 } : undefined) })
  const bytes = await readRange(rig.registry, DIGEST, { start: 1_000, end: SIZE })
  assert.ok(bytes.equals(BYTES.subarray(1_000)))
  const starts = rig.origin.requests.map(({ headers }) => Number(/^bytes=(\d+)-/.exec(headers.range ?? '')?.[1]))
  const ends = new Set(rig.origin.requests.map(({ headers }) => headers.range?.split('-')[1]))
  assert.deepEqual(
    starts.toSorted((a, b) => a - b),
    starts,
  )
  assert.equal(starts[0], 1_000)
  assert.ok(starts[1]! > 1_000 && starts[1]! <= 201_000)
  assert.deepEqual([...ends], [String(SIZE - 1)])
  assert.equal(await metric(rig.metrics, 'shoal_upstream_retries_total', { cause: 'transport' }), 2)
})

test('a body that ends early without a length is resumed, and in the end an error', async () => {
  await using rig = await openRig({ blobs, fault: ({ nth }) => (nth < 2 ? { truncateAfter: 100_000 } : undefined) })
  assert.ok((await readRange(rig.registry, DIGEST, { start: 0, end: SIZE })).equals(BYTES))
  assert.deepEqual(
    rig.origin.requests.map(({ headers }) => headers.range),
    ['bytes=0-899999', 'bytes=100000-899999', 'bytes=200000-899999'],
  )
  rig.origin.fault = () => ({ truncateAfter: 0 })
  await assert.rejects(
    readRange(rig.registry, DIGEST, { start: 0, end: SIZE }),
    failsWith('ERR_UPSTREAM_BODY', ({ details }) => details['missing'] === SIZE),
  )
})

test('however a body is cut, the same bytes come out', async () => {
  const cut = fc.record({
    after: fc.integer({ min: 0, max: 60_000 }),
    kind: fc.constantFrom('reset', 'truncate', 'refuse', 'ignore'),
  })
  const range = fc.tuple(fc.nat(SIZE - 1), fc.integer({ min: 1, max: 80_000 }))
  await fc.assert(
    fc.asyncProperty(fc.array(cut, { maxLength: 3 }), range, async (cuts, [start, length]) => {
      const end = Math.min(SIZE, start + length)
      await using rig = await openRig({ blobs })
      rig.origin.fault = ({ nth }): Fault | undefined => {
        const next = cuts[nth]
        if (next === undefined) return undefined
        if (next.kind === 'refuse') return { status: 502 }
        if (next.kind === 'ignore') return { ignoreRange: true }
        return next.kind === 'reset' ? { reset: next.after } : { truncateAfter: next.after }
      }
      const bytes = await readRange(rig.registry, DIGEST, { start, end })
      assert.ok(bytes.equals(BYTES.subarray(start, end)))
    }),
    { numRuns: 25 },
  )
})

test('a failure to resume is one more failure, and the next attempt goes on', async () => {
  const answers: (Fault | undefined)[] = [{ reset: 100_000 }, { status: 503 }, { reset: 'before-headers' }, undefined]
  await using rig = await openRig({ blobs, fault: ({ nth }) => answers[nth] })
  assert.ok((await readRange(rig.registry, DIGEST, { start: 0, end: SIZE })).equals(BYTES))
  assert.deepEqual(rig.clock.sleeps, [50, 100, 200])
})

test('an origin that keeps breaking off is given up after the retries', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ reset: 10 }) }, { retries: 2 })
  await assert.rejects(readRange(rig.registry, DIGEST, { start: 0, end: SIZE }), failsWith('ERR_UPSTREAM_TRANSPORT'))
  assert.equal(rig.origin.requests.length, 3)
  assert.deepEqual(rig.clock.sleeps, [50, 100])
})

test('a connection that is reset before the headers is tried again', async () => {
  await using rig = await openRig({ blobs, fault: ({ nth }) => (nth === 0 ? { reset: 'before-headers' } : undefined) })
  assert.ok((await readRange(rig.registry, DIGEST, { start: 0, end: 100 })).equals(BYTES.subarray(0, 100)))
  assert.equal(rig.origin.requests.length, 2)
})

test('a host that nobody listens on is an error of transport', async () => {
  await using rig = await openRig({ blobs }, { retries: 1 })
  await rig.origin.close()
  await assert.rejects(rig.registry.stat(keyOf(DIGEST)), failsWith('ERR_UPSTREAM_TRANSPORT'))
  assert.equal(await metric(rig.metrics, 'shoal_upstream_requests_total', { outcome: 'transport' }), 2)
})

test('a host that accepts the connection and says nothing is a timeout of connecting', async () => {
  const silent = net.createServer().listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo
  const sockets: net.Socket[] = []
  silent.on('connection', socket => sockets.push(socket))
  await using registry = await RegistryOrigin.open(testDeps(), {
    ...DEFAULTS,
    host: `https://127.0.0.1:${port}`,
    connectTimeoutMs: 60,
    retries: 0,
  })
  await assert.rejects(
    registry.stat(keyOf(DIGEST)),
    failsWith('ERR_UPSTREAM_TIMEOUT', ({ details }) => details['cause'] === 'UND_ERR_CONNECT_TIMEOUT'),
  )
  for (const socket of sockets) socket.destroy()
  silent.close()
})

test('an answer that does not come is a timeout', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ delayMs: 2_000 }) }, { idleTimeoutMs: 60, retries: 0 })
  await assert.rejects(rig.registry.stat(keyOf(DIGEST)), failsWith('ERR_UPSTREAM_TIMEOUT'))
  assert.equal(await metric(rig.metrics, 'shoal_upstream_requests_total', { outcome: 'timeout' }), 1)
})

test('a body that stands still is resumed like one that broke off', async () => {
  await using rig = await openRig(
    { blobs, fault: ({ nth }) => (nth === 0 ? { stallAfter: 50_000 } : undefined) },
    { idleTimeoutMs: 200 },
  )
  assert.ok((await readRange(rig.registry, DIGEST, { start: 0, end: SIZE })).equals(BYTES))
  assert.equal(await metric(rig.metrics, 'shoal_upstream_retries_total', { cause: 'timeout' }), 1)
})

test('a slow drip is not a timeout as long as it drips', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ bytesPerSecond: 1_000 }) }, { idleTimeoutMs: 300 })
  assert.ok((await readRange(rig.registry, DIGEST, { start: 7, end: 607 })).equals(BYTES.subarray(7, 607)))
  assert.equal(rig.origin.requests.length, 1)
})

test('a body that its reader leaves waiting does not time out, and slows the origin', async () => {
  const size = 64 * 2 ** 20
  const large = generatedBlob(size, 2)
  const digest = `sha256:${'a'.repeat(64)}`
  await using rig = await openRig(
    { blobs: new Map([[digest, large]]), fault: ({ method }) => (method === 'HEAD' ? { delayMs: 2_000 } : undefined) },
    { idleTimeoutMs: 200, retries: 0 },
  )
  const body = await rig.registry.open(keyOf(digest), { start: 0, end: size })
  let seen = 0
  for await (const piece of body!) {
    if (seen === 0) {
      // Two requests that do time out, one after the other, while nothing is pulled.
      for (let turn = 0; turn < 2; turn += 1)
        await assert.rejects(rig.registry.stat(keyOf(digest)), failsWith('ERR_UPSTREAM_TIMEOUT'))
      assert.ok(rig.origin.bytesSent.get(digest)! < size / 2, 'most of it has not been sent')
    }
    seen += piece.length
  }
  assert.equal(seen, size)
})

test('leaving early ends the request', async () => {
  const large = generatedBlob(2 ** 30, 2)
  const digest = `sha256:${'b'.repeat(64)}`
  await using rig = await openRig({ blobs: new Map([[digest, large]]) })
  const body = await rig.registry.open(keyOf(digest), { start: 0, end: 2 ** 30 })
  for await (const piece of body!) {
    assert.ok(piece.length > 0)
    break
  }
  await until(() => rig.origin.running === 0, 'the origin has stopped sending')
  assert.ok(rig.origin.bytesSent.get(digest)! < 2 ** 26)
})

test('an abort ends the request, also when nobody is reading', async () => {
  const large = generatedBlob(2 ** 30, 2)
  const digest = `sha256:${'c'.repeat(64)}`
  await using rig = await openRig({ blobs: new Map([[digest, large]]) })
  const controller = new AbortController()
  const reason = new Error('left')
  const body = await rig.registry.open(keyOf(digest), { start: 0, end: 2 ** 30 }, { signal: controller.signal })
  controller.abort(reason)
  await until(() => rig.origin.running === 0, 'the origin has stopped sending')
  assert.ok(rig.origin.bytesSent.get(digest)! < 2 ** 26)
  await assert.rejects(collect(body), thrown => thrown === reason)
})

test('an abort while waiting for the headers throws the reason', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ delayMs: 2_000 }) })
  const controller = new AbortController()
  const reason = new Error('left')
  const opening = rig.registry.open(keyOf(DIGEST), { start: 0, end: 10 }, { signal: controller.signal })
  await until(() => rig.origin.requests.length === 1, 'the request has arrived')
  controller.abort(reason)
  await assert.rejects(opening, thrown => thrown === reason)
  assert.equal(await metric(rig.metrics, 'shoal_upstream_requests_total', { outcome: 'aborted' }), 1)
})

test('an abort while waiting for a connection throws the reason, and nothing is asked for', async () => {
  const size = 2 ** 26
  const digest = `sha256:${'d'.repeat(64)}`
  await using rig = await openRig({ blobs: new Map([[digest, generatedBlob(size, 2)]]) }, { maxConnections: 1 })
  const body = await rig.registry.open(keyOf(digest), { start: 0, end: size })
  const controller = new AbortController()
  const reason = new Error('left')
  const waiting = rig.registry.open(keyOf(digest), { start: 7, end: 9 }, controller)
  controller.abort(reason)
  await assert.rejects(waiting, thrown => thrown === reason)
  assert.equal((await collect(body)).length, size)
  await readRange(rig.registry, digest, { start: 0, end: 10 })
  assert.deepEqual(
    rig.origin.requests.map(({ headers }) => headers.range),
    [`bytes=0-${size - 1}`, 'bytes=0-9'],
  )
})

const LIES: [what: string, fault: Fault][] = [
  ['another range', { headers: { 'content-range': `bytes 11-110/${SIZE}` } }],
  ['a longer range', { headers: { 'content-range': `bytes 10-200/${SIZE}` } }],
  ['no Content-Range', { headers: { 'content-range': '' } }],
  ['an unreadable Content-Range', { headers: { 'content-range': 'bytes 10-109' } }],
  ['two Content-Ranges', { headers: { 'content-range': [`bytes 10-109/${SIZE}`, `bytes 10-109/${SIZE}`] } }],
  ['another size of the blob', { headers: { 'content-range': `bytes 10-109/${SIZE + 1}` } }],
  ['a content coding', { encoding: 'gzip' }],
  ['more bytes than asked for', { excess: 1 }],
]

for (const [what, fault] of LIES) {
  test(`${what} in a ranged answer is not trusted, and not tried again`, async () => {
    await using rig = await openRig({ blobs })
    assert.equal((await rig.registry.stat(keyOf(DIGEST)))?.size, SIZE)
    rig.origin.fault = () => fault
    await assert.rejects(readRange(rig.registry, DIGEST, { start: 10, end: 110 }), failsWith('ERR_UPSTREAM_BODY'))
    assert.equal(rig.origin.count('blob'), 2)
    await until(() => rig.origin.running === 0, 'nothing more is sent')
  })
}

test('a length that contradicts the range is found out before the body is read', async () => {
  await using rig = await openRig({ blobs })
  // A whole 200 body under a Content-Range that promises 100 bytes.
  rig.origin.fault = () => ({ ignoreRange: true, headers: { 'content-range': `bytes 10-109/${SIZE}` } })
  assert.ok((await readRange(rig.registry, DIGEST, { start: 10, end: 110 })).equals(BYTES.subarray(10, 110)))
  assert.equal(await metric(rig.metrics, 'shoal_upstream_ranges_ignored_total'), 1)
})

test('a body shorter than its Content-Length is never taken for the whole', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ reset: 60 }) }, { retries: 0 })
  await assert.rejects(readRange(rig.registry, DIGEST, { start: 0, end: 100 }), failsWith('ERR_UPSTREAM_TRANSPORT'))
})

test('an origin that ignores Range is read from its beginning without one, and said so once', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ ignoreRange: true }) })
  for (const [start, end] of [
    [500_000, 500_100],
    [0, 10],
    [SIZE - 1, SIZE],
  ] as const) {
    assert.ok((await readRange(rig.registry, DIGEST, { start, end })).equals(BYTES.subarray(start, end)))
  }
  assert.deepEqual(
    rig.origin.requests.map(({ headers }) => headers.range),
    ['bytes=500000-500099', undefined, undefined, undefined],
  )
  assert.equal(rig.log.lines.filter(line => line.includes('origin ignores Range')).length, 1)
  assert.equal(await metric(rig.metrics, 'shoal_upstream_ranges_ignored_total'), 1)

  rig.clock.time += 11 * 60_000
  rig.origin.fault = () => undefined
  await readRange(rig.registry, DIGEST, { start: 1, end: 2 })
  assert.equal(rig.origin.requests.at(-1)!.headers.range, 'bytes=1-1', 'it is given another chance')
})

test('the whole blob with 200 is what was asked for when everything was', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ ignoreRange: true }) })
  assert.ok((await readRange(rig.registry, DIGEST, { start: 0, end: SIZE })).equals(BYTES))
  assert.equal(rig.origin.requests.length, 1)
  assert.equal(await metric(rig.metrics, 'shoal_upstream_ranges_ignored_total'), 0)
})

test('a rangeless body that is resumed throws away what it had sent before', async () => {
  await using rig = await openRig({
    blobs,
    fault: ({ nth }) => ({ ignoreRange: true, ...(nth === 1 ? { reset: 300_000 } : {}) }),
  })
  assert.ok(
    (await readRange(rig.registry, DIGEST, { start: 250_000, end: 600_000 })).equals(BYTES.subarray(250_000, 600_000)),
  )
  assert.equal(rig.origin.requests.length, 3)
})

test('a rangeless body that keeps breaking off is not read from its beginning for ever', async () => {
  const size = 8 * 2 ** 20
  const large = generatedBlob(size, 4)
  const digest = `sha256:${'e'.repeat(64)}`
  // Each connection gets 2 MiB further than the one before: enough to have earned the attempts back, were it not for all that was thrown away.
  let connections = 0
  await using rig = await openRig(
    {
      blobs: new Map([[digest, large]]),
      fault: ({ headers }) => {
        if (headers.range !== undefined && connections > 0) return { ignoreRange: true }
        connections += 1
        return { ignoreRange: true, reset: connections * 2 * 2 ** 20 }
      },
    },
    { retries: 2 },
  )
  await assert.rejects(readRange(rig.registry, digest, { start: 0, end: size }), failsWith('ERR_UPSTREAM_TRANSPORT'))
  assert.equal(connections, 3)
})

test('a rangeless body shorter than the range is an error', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ ignoreRange: true }) })
  await assert.rejects(
    readRange(rig.registry, DIGEST, { start: SIZE - 10, end: SIZE + 10 }),
    failsWith('ERR_UPSTREAM_BODY'),
  )
})

test('a rangeless body with a content coding is an error', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ ignoreRange: true, encoding: 'gzip' }) })
  await assert.rejects(readRange(rig.registry, DIGEST, { start: 10, end: 20 }), failsWith('ERR_UPSTREAM_BODY'))
})

test('a blob that vanishes while it is read is an error, not the end', async () => {
  await using rig = await openRig({ blobs, fault: ({ nth }) => (nth === 0 ? { reset: 10_000 } : { status: 404 }) })
  await assert.rejects(
    readRange(rig.registry, DIGEST, { start: 0, end: SIZE }),
    failsWith('ERR_UPSTREAM_STATUS', ({ details }) => details['status'] === 404),
  )
})

test('a status that tells nothing about rights is passed up with what it asks for', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ status: 429, headers: { 'retry-after': '120' } }) })
  const key = keyOf(DIGEST)
  const throttled = failsWith(
    'ERR_UPSTREAM_STATUS',
    ({ details }) => details['status'] === 429 && details['retryAfter'] === '120',
  )
  await assert.rejects(rig.registry.stat(key), throttled)
  await assert.rejects(rig.registry.open(key, { start: 0, end: 1 }), throttled)
  assert.equal(rig.origin.requests.length, 2)
  rig.origin.fault = () => ({ status: 418 })
  await assert.rejects(
    rig.registry.open(key, { start: 0, end: 1 }),
    failsWith('ERR_UPSTREAM_STATUS', ({ details }) => details['status'] === 418),
  )
})

test('a short Retry-After is waited for', async () => {
  await using rig = await openRig({
    blobs,
    fault: ({ nth }) =>
      nth === 0 ? { status: 429, headers: { 'retry-after': '2' } } : nth === 1 ? { status: 503 } : undefined,
  })
  assert.equal((await rig.registry.stat(keyOf(DIGEST)))?.size, SIZE)
  assert.deepEqual(rig.clock.sleeps, [2_050, 100])
})

const HEADS: [what: string, fault: Fault][] = [
  ['405', { status: 405 }],
  ['501', { status: 501 }],
  ['400', { status: 400 }],
  ['no length', { headers: { 'content-length': '' } }],
  ['a length of zero', { headers: { 'content-length': '0' } }],
  ['a content coding', { encoding: 'gzip' }],
]

for (const [what, fault] of HEADS) {
  test(`where HEAD answers with ${what}, the size is learnt from the first byte`, async () => {
    await using rig = await openRig({ blobs, fault: ({ method }) => (method === 'HEAD' ? fault : undefined) })
    const info = await rig.registry.stat(keyOf(DIGEST))
    assert.equal(info?.size, SIZE)
    assert.equal(info.visibility, 'public')
    assert.equal(rig.origin.requests.at(-1)!.headers.range, 'bytes=0-0')
  })
}

test('without HEAD, an absent blob is absent and an empty one is empty', async () => {
  const empty = digestOf(Buffer.alloc(0))
  await using rig = await openRig({
    blobs: new Map([[empty, Buffer.alloc(0)]]),
    fault: ({ method }) => (method === 'HEAD' ? { status: 405 } : undefined),
  })
  assert.equal((await rig.registry.stat(keyOf(empty)))?.size, 0)
  assert.equal(await rig.registry.stat(keyOf(DIGEST)), undefined)
})

test('a registry that tells the size in no way at all is an error', async () => {
  await using rig = await openRig({ blobs })
  const answers: [Fault, ErrorCode][] = [
    [{ headers: { 'content-range': 'bytes 0-0/*' } }, 'ERR_UPSTREAM_BODY'],
    [{ encoding: 'gzip' }, 'ERR_UPSTREAM_BODY'],
    [{ status: 400 }, 'ERR_UPSTREAM_STATUS'],
  ]
  for (const [fault, code] of answers) {
    rig.origin.fault = ({ method }) => (method === 'HEAD' ? { status: 405 } : fault)
    await assert.rejects(rig.registry.stat(keyOf(DIGEST)), failsWith(code))
  }
})

const HUGE = String(Number.MAX_SAFE_INTEGER)
const HUGE_SIZES: [what: string, head: Fault, get: Fault][] = [
  ['the length of an answer to HEAD', { headers: { 'content-length': HUGE } }, { status: 404 }],
  ['a Content-Range', { status: 405 }, { headers: { 'content-range': `bytes 0-0/${HUGE}` } }],
  ['the length of a whole body', { status: 405 }, { ignoreRange: true, headers: { 'content-length': HUGE } }],
]

for (const [what, head, get] of HUGE_SIZES) {
  test(`a size that no blob has is refused in ${what}`, async () => {
    await using rig = await openRig({ blobs, fault: ({ method }) => (method === 'HEAD' ? head : get) })
    await assert.rejects(
      rig.registry.stat(keyOf(DIGEST)),
      failsWith('ERR_UPSTREAM_BODY', ({ details }) => details['size'] === Number.MAX_SAFE_INTEGER),
    )
  })
}

test('a blob has 2 TiB at most', async () => {
  const [largest, larger] = [`sha256:${'1'.repeat(64)}`, `sha256:${'2'.repeat(64)}`]
  const sizes = new Map([
    [largest, generatedBlob(2 ** 41, 1)],
    [larger, generatedBlob(2 ** 41 + 1, 1)],
  ])
  await using rig = await openRig({ blobs: sizes })
  assert.equal((await rig.registry.stat(keyOf(largest)))?.size, 2 ** 41)
  const begun = await rig.registry.begin(keyOf(largest), { start: 2 ** 41 - 9, end: Infinity })
  assert.deepEqual(begun?.range, { start: 2 ** 41 - 9, end: 2 ** 41 })
  assert.equal((await collect(begun.body)).length, 9)
  await assert.rejects(rig.registry.stat(keyOf(larger)), failsWith('ERR_UPSTREAM_BODY'))
  await assert.rejects(rig.registry.begin(keyOf(larger), { start: 0, end: 9 }), failsWith('ERR_UPSTREAM_BODY'))
  await until(() => rig.origin.running === 0, 'nothing more is sent')
})

/** Begins at `start`, reads everything that was begun, and says what was asked of the origin for it. */
async function begin(
  rig: RegistryRig,
  range: ByteRange,
  digest = DIGEST,
): Promise<{ bytes: Buffer; size: number; range: ByteRange; asked: (string | undefined)[] }> {
  const before = rig.origin.requests.length
  const begun = await rig.registry.begin(keyOf(digest), range)
  assert.ok(begun !== undefined)
  const bytes = await collect(begun.body)
  const asked = rig.origin.requests
    .slice(before)
    .map(({ headers, method }) => (method === 'HEAD' ? method : headers.range))
  assert.equal(bytes.length, rangeLength(begun.range))
  return { bytes, asked, size: begun.info.size, range: begun.range }
}

test('the size and the first bytes of a blob come in one request', async () => {
  await using rig = await openRig({ blobs, auth: { kind: 'token' } })
  await rig.registry.stat(keyOf(DIGEST))
  const part = await begin(rig, { start: 1_000, end: 5_000 })
  assert.deepEqual(part.asked, ['bytes=1000-4999'])
  assert.equal(part.size, SIZE)
  assert.deepEqual(part.range, { start: 1_000, end: 5_000 })
  assert.ok(part.bytes.equals(BYTES.subarray(1_000, 5_000)))
  const rest = await begin(rig, { start: SIZE - 10, end: Infinity })
  assert.equal(rest.asked.length, 1)
  assert.deepEqual(rest.range, { start: SIZE - 10, end: SIZE })
  assert.ok(rest.bytes.equals(BYTES.subarray(-10)))
  assert.equal(rig.registry.readsWhole(), false)
})

test('an absent blob cannot be begun', async () => {
  await using rig = await openRig({ blobs })
  assert.equal(await rig.registry.begin(keyOf(`sha256:${'0'.repeat(64)}`), { start: 0, end: 10 }), undefined)
  assert.equal(rig.origin.requests.length, 1)
})

test('what is begun beyond the end of a blob is nothing, and the size', async () => {
  await using rig = await openRig({ blobs })
  const beyond = await begin(rig, { start: SIZE, end: SIZE + 10 })
  assert.deepEqual(beyond.range, { start: SIZE, end: SIZE })
  assert.equal(beyond.size, SIZE)
  const far = await begin(rig, { start: Number.MAX_SAFE_INTEGER, end: Infinity })
  assert.deepEqual(far.range, { start: SIZE, end: SIZE })
  assert.deepEqual(far.asked, ['HEAD'], 'offsets that servers may not be able to count are not sent')
})

test('an empty blob is begun where there is nothing to send', async () => {
  const empty = digestOf(Buffer.alloc(0))
  await using rig = await openRig({ blobs: new Map([[empty, Buffer.alloc(0)]]) })
  const begun = await begin(rig, { start: 0, end: Infinity }, empty)
  assert.equal(begun.size, 0)
  assert.deepEqual(begun.range, { start: 0, end: 0 })
  assert.deepEqual(begun.asked, [`bytes=0-${2 ** 41 - 1}`, 'HEAD'])
})

test('where a ranged answer does not tell the size, it is asked for', async () => {
  await using rig = await openRig({
    blobs,
    fault: ({ method }) => (method === 'GET' ? { headers: { 'content-range': 'bytes 10-109/*' } } : undefined),
  })
  const begun = await begin(rig, { start: 10, end: 110 })
  assert.equal(begun.size, SIZE)
  assert.ok(begun.bytes.equals(BYTES.subarray(10, 110)))
  assert.deepEqual(begun.asked, ['bytes=10-109', 'HEAD', 'bytes=10-109'])
})

test('where Range is ignored, a blob is begun from its beginning, and is better read as a whole for a while', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ ignoreRange: true }) })
  assert.equal(rig.registry.readsWhole(), false)
  const first = await begin(rig, { start: 1_000, end: 2_000 })
  assert.equal(first.size, SIZE)
  assert.ok(first.bytes.equals(BYTES.subarray(1_000, 2_000)))
  assert.equal(first.asked.at(-1), undefined)
  assert.equal(rig.registry.readsWhole(), true)

  const second = await begin(rig, { start: 0, end: 500 })
  assert.deepEqual(second.asked, [undefined], 'what is known of the host saves requests')
  assert.deepEqual(second.range, { start: 0, end: 500 })
  assert.ok(second.bytes.equals(BYTES.subarray(0, 500)))
  const third = await begin(rig, { start: 700_000, end: Infinity })
  assert.deepEqual(third.asked, [undefined])
  assert.ok(third.bytes.equals(BYTES.subarray(700_000)))

  rig.clock.time += 10 * 60_000 + 1
  assert.equal(rig.registry.readsWhole(), false)
})

test('a small blob that comes whole is as good as its range', async () => {
  await using rig = await openRig({ blobs, fault: () => ({ ignoreRange: true }) })
  const begun = await begin(rig, { start: 0, end: Infinity })
  assert.equal(begun.asked.length, 1)
  assert.ok(begun.bytes.equals(BYTES))
  assert.equal(rig.registry.readsWhole(), false)
})

test('a blob with a content coding cannot be begun', async () => {
  await using rig = await openRig({ blobs })
  for (const method of ['GET', undefined]) {
    rig.origin.fault = seen => (method === undefined || seen.method === method ? { encoding: 'gzip' } : undefined)
    const work = rig.registry.begin(keyOf(DIGEST), { start: 0, end: 10 })
    await assert.rejects(work, failsWith('ERR_UPSTREAM_BODY'))
    await until(() => rig.origin.running === 0, 'nothing more is sent')
  }
})

test('a body that was begun and breaks off is resumed at the next byte', async () => {
  await using rig = await openRig({
    blobs,
    fault: ({ nth }) => (nth === 0 ? { reset: 200_000 } : nth === 1 ? { truncateAfter: 100_000 } : undefined),
  })
  const begun = await begin(rig, { start: 1_000, end: Infinity })
  assert.ok(begun.bytes.equals(BYTES.subarray(1_000)))
  assert.equal(begun.asked.length, 3)
  const [first, second, third] = begun.asked.map(range => Number(/^bytes=(\d+)-/.exec(range ?? '')?.[1]))
  assert.equal(first, 1_000)
  assert.ok(second! > 1_000 && second! <= 201_000)
  assert.equal(third, second! + 100_000)
})

test('a body that was begun and stays short is an error', async () => {
  await using rig = await openRig({ blobs, fault: ({ nth }) => ({ truncateAfter: nth === 0 ? 100_000 : 0 }) })
  const begun = await rig.registry.begin(keyOf(DIGEST), { start: 0, end: Infinity })
  assert.equal(begun?.info.size, SIZE)
  await assert.rejects(
    collect(begun.body),
    failsWith('ERR_UPSTREAM_BODY', ({ details }) => details['missing'] === SIZE - 100_000),
  )
})

test('beginning and resuming share their attempts', async () => {
  await using rig = await openRig(
    { blobs, fault: ({ nth }) => (nth === 0 ? { status: 503 } : { reset: 10 }) },
    { retries: 1 },
  )
  const begun = await rig.registry.begin(keyOf(DIGEST), { start: 0, end: Infinity })
  await assert.rejects(collect(begun?.body), failsWith('ERR_UPSTREAM_TRANSPORT'))
  assert.equal(rig.origin.requests.length, 2)
})

test('another range than the one to begin with is asked for again, and then not trusted', async () => {
  const wrong: Fault = { headers: { 'content-range': `bytes 11-110/${SIZE}` } }
  await using rig = await openRig({ blobs, fault: ({ nth }) => (nth === 0 ? wrong : undefined) })
  const begun = await begin(rig, { start: 10, end: 110 })
  assert.ok(begun.bytes.equals(BYTES.subarray(10, 110)))
  rig.origin.fault = ({ method }) => (method === 'GET' ? wrong : undefined)
  const work = rig.registry.begin(keyOf(DIGEST), { start: 10, end: 110 })
  await assert.rejects(work, failsWith('ERR_UPSTREAM_BODY'))
  await until(() => rig.origin.running === 0, 'nothing more is sent')
})

test('a length that contradicts the range to begin with is not trusted', async () => {
  await using rig = await openRig({
    blobs,
    fault: ({ method }) => (method === 'GET' ? { headers: { 'content-length': '99' } } : undefined),
  })
  const work = rig.registry.begin(keyOf(DIGEST), { start: 10, end: 110 })
  await assert.rejects(work, failsWith('ERR_UPSTREAM_BODY'))
})

test('a body that was begun ends when its reader leaves, and when it aborts', async () => {
  const size = 2 ** 30
  const digest = `sha256:${'f'.repeat(64)}`
  await using rig = await openRig({ blobs: new Map([[digest, generatedBlob(size, 2)]]) })
  const left = await rig.registry.begin(keyOf(digest), { start: 0, end: Infinity })
  for await (const piece of left!.body) {
    assert.ok(piece.length > 0)
    break
  }
  await until(() => rig.origin.running === 0, 'the origin has stopped sending')
  const controller = new AbortController()
  const reason = new Error('left')
  const begun = await rig.registry.begin(keyOf(digest), { start: 0, end: Infinity }, controller)
  controller.abort(reason)
  await assert.rejects(collect(begun?.body), thrown => thrown === reason)
  await until(() => rig.origin.running === 0, 'the origin has stopped sending')
})

test('a registry below a path and on an IPv6 address is asked there', async () => {
  await using rig = await openRig({ blobs, prefix: '/mirror/docker', address: '::1' })
  assert.ok((await readRange(rig.registry, DIGEST, { start: 3, end: 33 })).equals(BYTES.subarray(3, 33)))
  assert.equal(rig.origin.requests[0]!.path, `/mirror/docker/v2/library/test/blobs/${DIGEST}`)
})

test('a name that is none never reaches the registry', async () => {
  await using rig = await openRig({ blobs })
  const key = { ...keyOf(DIGEST), repository: '../../etc' }
  await assert.rejects(rig.registry.stat(key), failsWith('ERR_NAME_INVALID'))
  await assert.rejects(rig.registry.open(key, { start: 0, end: 1 }), failsWith('ERR_NAME_INVALID'))
  await assert.rejects(rig.registry.begin(key, { start: 0, end: 1 }), failsWith('ERR_NAME_INVALID'))
  assert.equal(rig.origin.requests.length, 0)
})

test('closing waits for the bodies under way, refuses new work, and may be repeated', async () => {
  await using rig = await openRig({ blobs })
  const body = await rig.registry.open(keyOf(DIGEST), { start: 0, end: SIZE })
  let closed = false
  const closing = rig.registry.close().then(() => {
    closed = true
  })
  await assert.rejects(rig.registry.stat(keyOf(DIGEST)), failsWith('ERR_CLOSED'))
  assert.equal(closed, false)
  assert.ok((await collect(body)).equals(BYTES))
  await closing
  await rig.registry.close()
})
