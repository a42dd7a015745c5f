import assert from 'node:assert/strict'
import { once } from 'node:events'
import net, { type AddressInfo, type Socket } from 'node:net'
import { test } from 'node:test'
import { parseReference, ShoalError, systemClock, type ManifestKey, type Origin } from '../../../src/core/index.ts'
import { OriginTable, PUBLIC_TLS, type ProxyOptions, type RegistryOptions } from '../../../src/upstream/index.ts'
import { bytesOf, digestOf, generatedBlob } from '../../support/generated-blob.ts'
import { startScriptedOrigin } from '../../support/scripted-origin.ts'
import { collect, keyOf, REPOSITORY, testDeps, until } from '../rig.ts'

const NAME = 'r.test'
const SIZE = 1_000_000
const BYTES = bytesOf(generatedBlob(SIZE, 21))
const DIGEST = digestOf(BYTES)
const KEY = { ...keyOf(DIGEST), registry: NAME }
const MANIFEST: ManifestKey = { registry: NAME, repository: REPOSITORY, reference: parseReference('latest') }
const LISTING = { registry: NAME, repository: REPOSITORY, listing: { kind: 'tags' }, query: '' } as const
const WHOLE = { start: 0, end: SIZE }
const blobs = new Map([[DIGEST, BYTES]])

/** As `shoal serve` would ask it by default: four attempts of ten seconds. */
function openTable(host: string, options: { idleTimeoutMs?: number; retries?: number; proxy?: ProxyOptions } = {}) {
  const { proxy, ...connection } = options
  const registry: RegistryOptions = {
    host,
    tls: PUBLIC_TLS,
    visibility: 'auto',
    mirrors: [],
    ...(proxy === undefined ? {} : { proxy }),
  }
  return OriginTable.open(testDeps(systemClock), {
    connectTimeoutMs: 3_000,
    idleTimeoutMs: 10_000,
    retries: 3,
    maxConnections: 8,
    registries: { [NAME]: registry },
    origins: {},
    dockerConfig: '',
    credentialPlugins: [],
    certsD: '',
    allowAny: false,
    allowPrivate: [],
    ...connection,
  })
}

/** Accepts every connection and reads what comes, without a word. */
async function startSilent() {
  const sockets = new Set<Socket>()
  const server = net.createServer(socket => sockets.add(socket.on('error', () => undefined).resume()))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise(resolve => server.close(resolve))
    },
  }
}

/** What a request failed with, and after how many milliseconds. */
async function failure(work: Promise<unknown>): Promise<{ error: ShoalError; ms: number }> {
  const began = performance.now()
  try {
    await work
  } catch (error: unknown) {
    assert.ok(error instanceof ShoalError, String(error))
    return { error, ms: performance.now() - began }
  }
  throw new Error('nothing failed')
}

async function assertHung(work: Promise<unknown>, [least, most]: readonly [number, number]): Promise<void> {
  const { error, ms } = await failure(work)
  assert.equal(error.code, 'ERR_UPSTREAM_TIMEOUT')
  assert.equal(error.details['hung'], true, error.message)
  assert.ok(ms > least && ms < most, `${ms} ms`)
}

/** Every kind of request. */
function askAll(origin: Origin): Promise<unknown>[] {
  return [
    origin.stat(KEY),
    origin.open(KEY, WHOLE),
    origin.statManifest(MANIFEST),
    origin.getManifest(MANIFEST),
    origin.list(LISTING),
  ]
}

test('a registry that accepts connections and never answers is given up within about two seconds', async () => {
  await using silent = await startSilent()
  await using table = await openTable(silent.url)
  const origin = table.get(NAME)!
  const [source] = table.sources(NAME)
  assert.equal(table.sources(NAME).length, 1)
  const asked = [...askAll(origin), source!.begin!(KEY, WHOLE), source!.stat(KEY), source!.open(KEY, WHOLE)]
  await Promise.all(asked.map(request => assertHung(request, [1_500, 3_500])))
  // The next ones need not wait as long.
  await Promise.all(askAll(origin).map(request => assertHung(request, [500, 1_900])))
})

test('a registry that hangs gets one request and no repetition of it, and is used again when it is back', async () => {
  await using server = await startScriptedOrigin({ blobs, fault: () => ({ delayMs: 60_000 }) })
  await using table = await openTable(server.url)
  await assertHung(table.get(NAME)!.stat(KEY), [1_500, 3_500])
  assert.equal(server.count('blob'), 1)
  assert.deepEqual(
    server.requests.filter(({ kind }) => kind === 'other').map(({ url }) => url),
    ['/v2'],
  )
  server.fault = () => undefined
  assert.equal((await table.get(NAME)!.stat(KEY))?.size, SIZE)
})

test('a registry that hangs in the middle of a blob is given up as soon', async () => {
  await using server = await startScriptedOrigin({
    blobs,
    fault: ({ kind }) => (kind === 'blob' ? { stallAfter: 300_000 } : { delayMs: 60_000 }),
  })
  await using table = await openTable(server.url)
  const begun = await table.sources(NAME)[0]!.begin!(KEY, WHOLE)
  let received = 0
  const reading = (async () => {
    for await (const piece of begun!.body) received += piece.length
  })()
  await assertHung(reading, [1_500, 3_500])
  assert.equal(received, 300_000)
  assert.equal(server.count('blob'), 1, 'the rest is not asked for')
})

for (const status of [undefined, 503]) {
  const how = status === undefined ? 'answers' : `answers with ${status}`
  test(`a registry that never sends a blob but ${how} elsewhere is waited for as long as configured`, async () => {
    await using server = await startScriptedOrigin({
      blobs,
      fault: ({ kind }) => (kind === 'blob' ? { delayMs: 60_000 } : status === undefined ? undefined : { status }),
    })
    await using table = await openTable(server.url, { idleTimeoutMs: 3_000, retries: 0 })
    const { error, ms } = await failure(table.get(NAME)!.stat(KEY))
    assert.equal(error.code, 'ERR_UPSTREAM_TIMEOUT')
    assert.equal(error.details['hung'], undefined)
    assert.ok(ms > 2_900, `${ms} ms`)
    assert.ok(server.count('other') >= 2, 'it was pinged')
  })
}

test('a slow registry that is closed is not taken for one that hangs', async () => {
  await using server = await startScriptedOrigin({
    blobs,
    fault: ({ kind }) => (kind === 'blob' ? { delayMs: 2_400 } : { delayMs: 60_000 }),
  })
  await using table = await openTable(server.url)
  const asked = table.get(NAME)!.stat(KEY)
  await until(() => server.count('blob') === 1, 'the registry has been asked')
  await table.close()
  assert.equal((await asked)?.size, SIZE)
})

function proxyAt(url: string, fallback: boolean): ProxyOptions {
  return { url, fallback, checkIntervalMs: 5_000, checkPauseElapsedMs: 300_000, useHttp: false }
}

test('a proxy that hangs is the registry’s hang where nothing goes past it, and is not where requests may', async () => {
  await using silent = await startSilent()
  await using server = await startScriptedOrigin({ blobs })
  await using strict = await openTable(server.url, { proxy: proxyAt(silent.url, false) })
  await using lenient = await openTable(server.url, { idleTimeoutMs: 3_000, proxy: proxyAt(silent.url, true) })
  const began = performance.now()
  const read = async (): Promise<void> => {
    assert.deepEqual(await collect(await lenient.get(NAME)!.open(KEY, WHOLE)), BYTES)
    assert.ok(performance.now() - began > 2_900, 'the proxy was given its time')
  }
  await Promise.all([assertHung(strict.get(NAME)!.stat(KEY), [1_500, 3_500]), read()])
  const others = server.requests.filter(({ kind }) => kind === 'other')
  assert.ok(others.length >= 1, 'the registry was pinged directly')
})

test('with a proxy that hangs before a registry that hangs, both are given up together', async () => {
  await using silent = await startSilent()
  await using hung = await startSilent()
  await using table = await openTable(hung.url, { proxy: proxyAt(silent.url, true) })
  await assertHung(table.get(NAME)!.stat(KEY), [1_500, 3_500])
})
