import assert from 'node:assert/strict'
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { test } from 'node:test'
import { Registry } from 'prom-client'
import { errorCode, parseReference, ShoalError, type Digest, type ManifestKey } from '../../../src/core/index.ts'
import { bytesOf, digestOf, generatedBlob } from '../../support/generated-blob.ts'
import type { Fault } from '../../support/scripted-origin.ts'
import { until } from '../../support/until.ts'
import { ManualClock } from '../../store/harness.ts'
import { collect, keyOf, metric, REPOSITORY, readRange, TestLog } from '../rig.ts'
import { ClosableFake, fakeMirror, openMirror, openMirrorRig } from './rig.ts'

const SIZE = 1_000_000
const CONTENT = bytesOf(generatedBlob(SIZE, 3))
const BLOB = digestOf(CONTENT)
const WHOLE = { start: 0, end: SIZE }
const BLOBS = new Map([[BLOB, CONTENT]])
const UNKNOWN = `sha256:${'0'.repeat(64)}`
const MANIFEST = Buffer.from('{"schemaVersion":2}')

/** Lets everything that is already decided happen. */
const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

function manifestKey(reference: string): ManifestKey {
  return { registry: 'registry.test', repository: REPOSITORY, reference: parseReference(reference) }
}

const LISTING = { registry: 'registry.test', repository: REPOSITORY, listing: { kind: 'tags' }, query: '' } as const

async function failed(promise: Promise<unknown>): Promise<string | undefined> {
  try {
    await promise
  } catch (error: unknown) {
    return errorCode(error)
  }
  return 'nothing failed'
}

test('a healthy mirror answers like the registry that it mirrors', async () => {
  await using rig = await openMirrorRig({ blobs: BLOBS, tags: ['latest'] })
  const { metrics, mirror, server } = rig
  const digest = server.addManifest(
    { mediaType: 'application/vnd.oci.image.manifest.v1+json', body: MANIFEST },
    'latest',
  )
  assert.equal((await mirror.stat(keyOf(BLOB)))?.size, SIZE)
  assert.ok((await readRange(mirror, BLOB, WHOLE)).equals(CONTENT))
  const begun = await mirror.begin?.(keyOf(BLOB), { start: 10, end: 20 })
  assert.equal(begun?.info.size, SIZE)
  assert.deepEqual(await collect(begun.body), CONTENT.subarray(10, 20))
  assert.equal((await mirror.statManifest(manifestKey('latest')))?.digest, digest)
  assert.deepEqual((await mirror.getManifest(manifestKey(digest)))?.body, MANIFEST)
  assert.equal((await mirror.list(LISTING)).status, 200)
  assert.equal(await mirror.stat(keyOf(UNKNOWN)), undefined)
  assert.equal(await metric(metrics, 'shoal_mirror_requests_total', { outcome: 'success' }), 6)
  assert.equal(await metric(metrics, 'shoal_mirror_requests_total', { outcome: 'absent' }), 1)
  const { bytes, requests, status } = mirror.state()
  assert.deepEqual({ bytes, requests, status }, { bytes: SIZE + 10, requests: 7, status: 'healthy' })
  assert.equal(server.count('other'), 0, 'no ping')
})

/** What goes wrong with the first request, what the caller is told, and what is counted. */
const FAILURES: readonly [title: string, fault: Fault, code: string, kind: string][] = [
  ['a reset before the headers', { reset: 'before-headers' }, 'ERR_UPSTREAM_TRANSPORT', 'transport'],
  ['a reset in the middle of the body', { reset: 100_000 }, 'ERR_UPSTREAM_TRANSPORT', 'transport'],
  ['a body that ends early', { truncateAfter: 100_000 }, 'ERR_UPSTREAM_BODY', 'body'],
  ['a body that is too long', { excess: 10 }, 'ERR_UPSTREAM_BODY', 'body'],
  ['an encoded body', { encoding: 'gzip' }, 'ERR_UPSTREAM_BODY', 'body'],
  ['503', { status: 503 }, 'ERR_UPSTREAM_STATUS', 'status'],
]

for (const [title, fault, code, kind] of FAILURES) {
  test(`${title} is thrown and counts, the mirror is left alone and an answered ping brings it back`, async () => {
    let answers = false
    await using rig = await openMirrorRig({
      blobs: BLOBS,
      fault: ({ kind, nth }) => (kind === 'blob' && nth === 0 ? fault : answers ? undefined : { status: 500 }),
    })
    const { log, metrics, mirror, server } = rig
    assert.equal(await failed(readRange(mirror, BLOB, WHOLE)), code)
    assert.equal(mirror.isUsable, false)
    assert.equal(await mirror.open(keyOf(BLOB), WHOLE), undefined)
    assert.equal(await mirror.stat(keyOf(BLOB)), undefined)
    assert.equal(await mirror.begin?.(keyOf(BLOB), WHOLE), undefined)
    assert.equal(await mirror.statManifest(manifestKey('latest')), undefined)
    assert.equal(await mirror.getManifest(manifestKey('latest')), undefined)
    assert.equal(await failed(mirror.list(LISTING)), 'ERR_UPSTREAM_TRANSPORT')
    assert.equal(mirror.readsWhole(keyOf(BLOB)), true)
    assert.deepEqual([server.count('blob'), server.count('manifest'), server.count('tags')], [1, 0, 0])
    assert.equal(await metric(metrics, 'shoal_mirror_failures_total', { kind }), 1)
    assert.equal(await metric(metrics, 'shoal_mirror_failovers_total'), 1)
    answers = true
    await until(() => mirror.isUsable)
    assert.ok((await readRange(mirror, BLOB, WHOLE)).equals(CONTENT))
    assert.ok(log.lines.some(line => line.startsWith('mirror not used')))
    assert.ok(log.lines.some(line => line.startsWith('mirror answers, used again')))
  })
}

test('a port that nobody listens on fails at once, and its failed pings make the mirror down', async () => {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  const [log, metrics] = [new TestLog(), new Registry()]
  const mirror = await openMirror({ log, metrics }, `http://127.0.0.1:${port}`, { health: { failureLimit: 3 } })
  try {
    assert.equal(await failed(mirror.stat(keyOf(BLOB))), 'ERR_UPSTREAM_TRANSPORT')
    await until(() => mirror.status === 'down')
    const { failures, lastError, lastPing } = mirror.state()
    assert.equal(failures, 3)
    assert.match(lastError ?? '', /ECONNREFUSED/)
    assert.equal(lastPing?.outcome, 'failed')
    assert.equal(await metric(metrics, 'shoal_mirror_failures_total', { kind: 'ping' }), 2)
    assert.equal(await metric(metrics, 'shoal_mirrors', { kind: 'mirror', state: 'down' }), 1)
    assert.equal(await metric(metrics, 'shoal_mirrors'), 1)
  } finally {
    await mirror.close()
  }
  assert.equal(await metric(metrics, 'shoal_mirrors'), 0)
})

test('what the mirror does not have, does not allow or has no time for does not count against it', async () => {
  for (const [status, code] of [
    [403, 'ERR_UPSTREAM_AUTH'],
    [401, 'ERR_UPSTREAM_AUTH'],
    [429, 'ERR_UPSTREAM_STATUS'],
    [400, 'ERR_UPSTREAM_STATUS'],
  ] as const) {
    await using rig = await openMirrorRig({ blobs: BLOBS, fault: () => ({ status }) })
    assert.equal(await failed(readRange(rig.mirror, BLOB, WHOLE)), code, `${status}`)
    assert.equal(rig.mirror.isUsable, true)
    assert.equal(rig.mirror.state().failures, 0)
    assert.equal(await metric(rig.metrics, 'shoal_mirror_requests_total', { outcome: 'refused' }), 1)
    assert.equal(await metric(rig.metrics, 'shoal_mirror_failovers_total'), 0)
  }
})

test('a caller that leaves is told its own reason, and nothing counts', async () => {
  await using rig = await openMirrorRig({ blobs: BLOBS, fault: () => ({ stallAfter: 1_000 }) })
  const { metrics, mirror, server } = rig
  // Whatever it says, it says nothing of the mirror.
  const reason = new ShoalError('ERR_UPSTREAM_TIMEOUT', 'left')
  const before = AbortSignal.abort(reason)
  await assert.rejects(mirror.stat(keyOf(BLOB), { signal: before }), thrown => thrown === reason)
  assert.equal(server.count('blob'), 0)

  server.fault = () => ({ delayMs: 60_000 })
  const asking = new AbortController()
  const asked = assert.rejects(mirror.stat(keyOf(BLOB), { signal: asking.signal }), thrown => thrown === reason)
  await until(() => server.count('blob') === 1)
  asking.abort(reason)
  await asked

  server.fault = () => ({ stallAfter: 1_000 })
  const reading = new AbortController()
  const body = await mirror.open(keyOf(BLOB), WHOLE, { signal: reading.signal })
  const pieces = body?.[Symbol.asyncIterator]()
  await pieces?.next()
  reading.abort(reason)
  await assert.rejects(
    async () => pieces?.next(),
    thrown => thrown === reason,
  )
  assert.equal(mirror.state().failures, 0)
  assert.equal(await metric(metrics, 'shoal_mirror_requests_total', { outcome: 'aborted' }), 1)
})

test('a mirror is asked only for what it is meant for', async () => {
  await using puller = await openMirrorRig({ blobs: BLOBS }, { capabilities: ['pull'] })
  puller.server.addManifest({ mediaType: 'application/vnd.oci.image.manifest.v1+json', body: MANIFEST }, 'latest')
  const digest = digestOf(MANIFEST)
  assert.equal(await puller.mirror.statManifest(manifestKey('latest')), undefined)
  assert.equal(await puller.mirror.getManifest(manifestKey('latest')), undefined)
  assert.equal((await puller.mirror.statManifest(manifestKey(digest)))?.digest, digest)
  assert.equal((await puller.mirror.stat(keyOf(BLOB)))?.size, SIZE)
  assert.equal(await failed(puller.mirror.list(LISTING)), 'ERR_UPSTREAM_TRANSPORT')
  assert.equal(puller.server.count('tags'), 0)

  await using resolver = await openMirrorRig({ blobs: BLOBS }, { capabilities: ['resolve'] })
  resolver.server.addManifest({ mediaType: 'application/vnd.oci.image.manifest.v1+json', body: MANIFEST }, 'latest')
  assert.equal((await resolver.mirror.statManifest(manifestKey('latest')))?.digest, digest)
  assert.equal(await resolver.mirror.getManifest(manifestKey(digest)), undefined)
  assert.equal(await resolver.mirror.stat(keyOf(BLOB)), undefined)
  assert.equal(resolver.mirror.readsWhole(keyOf(BLOB)), true)
  assert.equal(await resolver.mirror.open(keyOf(BLOB), WHOLE), undefined)
  assert.equal(await resolver.mirror.begin?.(keyOf(BLOB), WHOLE), undefined)
  assert.equal((await resolver.mirror.list(LISTING)).status, 200)
})

test('a listing that the mirror does not know does not count against it', async () => {
  await using rig = await openMirrorRig({ fault: () => ({ status: 501 }) })
  assert.equal((await rig.mirror.list(LISTING)).status, 501)
  assert.equal(rig.mirror.isUsable, true)
  assert.equal(await metric(rig.metrics, 'shoal_mirror_requests_total', { outcome: 'refused' }), 1)
})

test('a mirror that hangs ends everything under way there within two seconds, and that is one failure', async () => {
  await using rig = await openMirrorRig({
    blobs: BLOBS,
    fault: ({ kind, method }) => (kind === 'blob' && method === 'GET' ? { stallAfter: 100_000 } : { delayMs: 60_000 }),
  })
  const { metrics, mirror, server } = rig
  const unread = await mirror.open(keyOf(BLOB), WHOLE)
  const started = performance.now()
  const codes = await Promise.all([
    failed(mirror.stat(keyOf(BLOB))),
    failed(mirror.statManifest(manifestKey('latest'))),
    ...Array.from({ length: 4 }, () => failed(readRange(mirror, BLOB, WHOLE))),
  ])
  const elapsed = performance.now() - started
  assert.deepEqual(
    codes,
    Array.from({ length: 6 }, () => 'ERR_UPSTREAM_TIMEOUT'),
  )
  assert.ok(elapsed > 1_500 && elapsed < 5_000, `${elapsed} ms`)
  assert.equal(mirror.status, 'suspect')
  assert.equal(await metric(metrics, 'shoal_mirror_failovers_total'), 6)
  const later = performance.now()
  assert.equal(await mirror.stat(keyOf(BLOB)), undefined)
  assert.ok(performance.now() - later < 500, 'nobody waits twice')

  server.fault = () => undefined
  await until(() => mirror.isUsable)
  assert.equal(await failed(collect(unread)), 'ERR_UPSTREAM_TIMEOUT', 'it was ended with the others')
  assert.equal(mirror.isUsable, true, 'and is no news when its reader finds out')
  assert.equal(await metric(metrics, 'shoal_mirror_failures_total', { kind: 'timeout' }), 1)
})

test('a mirror that is slow but answers its pings is left in peace', async () => {
  await using rig = await openMirrorRig({
    blobs: BLOBS,
    fault: ({ kind }) => (kind === 'blob' ? { delayMs: 2_400 } : undefined),
  })
  assert.ok((await readRange(rig.mirror, BLOB, WHOLE)).equals(CONTENT))
  assert.equal(rig.mirror.state().failures, 0)
  const pings = rig.server.count('other')
  assert.ok(pings === 1 || pings === 2, `${pings} pings in 2.4 s`)
})

test('a reader that does not ask for the next piece waits for nothing', async () => {
  const clock = new ManualClock()
  const inner = new ClosableFake()
  let pings = 0
  const mirror = fakeMirror(inner, { clock, ping: () => Promise.resolve(((pings += 1), 200)) })
  const digest = inner.add(CONTENT)
  const body = await mirror.open(keyOf(digest), WHOLE)
  const pieces = body?.[Symbol.asyncIterator]()
  await pieces?.next()
  for (let second = 0; second < 30; second += 1) {
    clock.advance(1_000)
    await settle()
  }
  assert.equal(pings, 0)
  assert.equal(clock.sleeping, 0)
  await pieces?.return?.()
  assert.equal((await pieces?.next())?.done, true)
  await mirror.close()
})

test('a mirror that sent wrong bytes of a blob is not asked for it for an hour, but for others', async () => {
  const clock = new ManualClock()
  const inner = new ClosableFake()
  const mirror = fakeMirror(inner, { clock })
  const [wrong, right] = [inner.add(Buffer.from('wrong')), inner.add(Buffer.from('right'))] as [Digest, Digest]
  mirror.distrust(wrong)
  assert.equal(mirror.isUsable, false)
  await until(() => mirror.isUsable)
  assert.equal(mirror.state().failures, 1)
  assert.equal(await mirror.stat(keyOf(wrong)), undefined)
  assert.equal(mirror.readsWhole(keyOf(wrong)), true)
  assert.equal((await mirror.stat(keyOf(right)))?.size, 5)
  assert.equal(mirror.readsWhole(keyOf(right)), false)
  clock.advance(60 * 60_000 + 1)
  assert.equal((await mirror.stat(keyOf(wrong)))?.size, 5)
  await mirror.close()
})

test('close refuses new work, waits for what is under way, and may be called again', async () => {
  await using rig = await openMirrorRig({ blobs: BLOBS, fault: () => ({ bytesPerSecond: 5_000_000 }) })
  const { mirror } = rig
  const body = await mirror.open(keyOf(BLOB), WHOLE)
  const closing = mirror.close()
  for (const ask of [
    () => mirror.stat(keyOf(BLOB)),
    () => mirror.open(keyOf(BLOB), WHOLE),
    async () => mirror.begin?.(keyOf(BLOB), WHOLE),
    () => mirror.statManifest(manifestKey('latest')),
    () => mirror.getManifest(manifestKey('latest')),
    () => mirror.list(LISTING),
  ]) {
    await assert.rejects(ask, { code: 'ERR_CLOSED' })
  }
  assert.ok((await collect(body)).equals(CONTENT))
  await closing
  await mirror.close()
  assert.equal(mirror.state().status, 'healthy')
})

test('a source without begin makes a mirror without it', () => {
  const inner = new ClosableFake()
  assert.equal(fakeMirror(inner).begin, undefined)
  inner.begin = inner.beginHere
  assert.notEqual(fakeMirror(inner).begin, undefined)
})

test('the state is plain JSON, and an error of a mirror gives away no path', async () => {
  await using rig = await openMirrorRig({ fault: () => ({ status: 500 }) }, { health: { failureLimit: 1 } })
  const { mirror, server } = rig
  await failed(mirror.stat(keyOf(BLOB)))
  const state = mirror.state()
  assert.deepEqual(JSON.parse(JSON.stringify(state)), state)
  const { since, ...rest } = state
  assert.ok(Math.abs(since - Date.now()) < 10_000)
  assert.deepEqual(rest, {
    registry: 'registry.test',
    host: server.host,
    kind: 'mirror',
    status: 'down',
    failures: 1,
    failureLimit: 1,
    lastError: `${server.host} answered 500`,
    requests: 1,
    bytes: 0,
  })
})

test('one blob that hangs does not cut those that flow, be the pings as slow as they may', async () => {
  const stuck = bytesOf(generatedBlob(1_000, 4))
  const hangs = digestOf(stuck)
  await using rig = await openMirrorRig({
    blobs: new Map([...BLOBS, [hangs, stuck]]),
    fault: ({ kind, reference }) =>
      kind === 'blob' && reference === BLOB ? { bytesPerSecond: 300_000 } : { delayMs: 60_000 },
  })
  const leave = new AbortController()
  const hanging = failed(rig.mirror.stat(keyOf(hangs), { signal: leave.signal }))
  assert.ok((await readRange(rig.mirror, BLOB, WHOLE)).equals(CONTENT))
  assert.equal(rig.mirror.state().failures, 0)
  leave.abort()
  await hanging
})
