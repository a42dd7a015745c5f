import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import net, { type AddressInfo, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { Registry } from 'prom-client'
import { errorCode, systemClock } from '../../../src/core/index.ts'
import { createUpstreamMetrics } from '../../../src/upstream/metrics.ts'
import { readTlsMaterial } from '../../../src/upstream/net/tls.ts'
import { readBody, Transport, type TransportProxy } from '../../../src/upstream/net/transport.ts'
import { PUBLIC_TLS } from '../../../src/upstream/index.ts'
import { digestOf, startScriptedOrigin, type ScriptedOrigin } from '../../support/scripted-origin.ts'
import { createTestCa, type TestCa } from '../../support/test-ca.ts'

const BYTES = Buffer.from('behind a proxy')
const DIGEST = digestOf(BYTES)
const PATH = `/v2/a/blobs/${DIGEST}`
const blobs = new Map([[DIGEST, BYTES]])

let ca: TestCa

before(async () => {
  ca = await createTestCa()
})

after(() => ca[Symbol.asyncDispose]())

/** An HTTP proxy that tunnels, and passes absolute URLs on to `upstream`. */
async function startProxy(upstream: ScriptedOrigin, refuse?: number) {
  const seen: string[] = []
  const sockets = new Set<Socket>()
  const server = http.createServer((request, response) => {
    seen.push(`${request.method ?? ''} ${request.url ?? ''} ${request.headers.host ?? ''}`)
    if (refuse !== undefined) {
      response.writeHead(refuse).end()
      return
    }
    const { pathname, search } = new URL(request.url ?? '')
    http.get(`http://${upstream.host}${pathname}${search}`, answer => {
      response.writeHead(answer.statusCode ?? 0, answer.headers)
      answer.pipe(response)
    })
  })
  server.on('connect', (request, client: Socket) => {
    seen.push(`CONNECT ${request.url ?? ''}`)
    sockets.add(client)
    if (refuse !== undefined) {
      client.end(`HTTP/1.1 ${refuse} No\r\n\r\n`)
      return
    }
    const there = net.connect(upstream.port, '127.0.0.1', () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n')
      client.pipe(there).pipe(client)
    })
    for (const socket of [client, there]) socket.on('error', () => undefined)
    sockets.add(there)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    seen,
    url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    },
  }
}

interface Route {
  isUsable: boolean
  readonly failures: unknown[]
}

async function openTransport(origin: ScriptedOrigin, proxy: URL, more: Partial<TransportProxy> = {}) {
  const state: Route = { isUsable: true, failures: [] }
  const route = {
    get isUsable() {
      return state.isUsable
    },
    wanted: () => undefined,
    failed: (error: unknown) => void state.failures.push(error),
  }
  const transport = new Transport(
    { clock: systemClock, metrics: createUpstreamMetrics(new Registry()) },
    {
      base: new URL(`${origin.url}/v2/`),
      tls: await readTlsMaterial({ ...PUBLIC_TLS, ca: [ca.caFile] }),
      connectTimeoutMs: 2_000,
      idleTimeoutMs: 2_000,
      retries: 0,
      maxConnections: 4,
      proxy: { url: proxy, fallback: true, useHttp: false, route, ...more },
    },
  )
  const get = async (secret = false): Promise<string> => {
    const url = new URL(`${origin.url}${PATH}`)
    const { body } = await transport.send(url, { method: 'GET', headers: {}, secret })
    return (await readBody(body, 1000, { host: url.host })).toString()
  }
  return { get, state, [Symbol.asyncDispose]: () => transport.close() }
}

const isTransport = (error: unknown): boolean => errorCode(error) === 'ERR_UPSTREAM_TRANSPORT'

test('an http registry is asked through the proxy with its whole URL', async () => {
  await using origin = await startScriptedOrigin({ blobs })
  await using proxy = await startProxy(origin)
  await using client = await openTransport(origin, proxy.url)
  assert.equal(await client.get(), BYTES.toString())
  assert.deepEqual(proxy.seen, [`GET ${origin.url}${PATH} ${origin.host}`])
  assert.equal(await client.get(true), BYTES.toString())
  assert.equal(proxy.seen.length, 1, 'past the proxy')
})

test('an https registry is asked through a tunnel, end to end', async () => {
  const { cert, key } = await ca.issue()
  await using origin = await startScriptedOrigin({ blobs, tls: { cert, key } })
  await using proxy = await startProxy(origin)
  await using client = await openTransport(origin, proxy.url)
  for (let round = 0; round < 3; round += 1) assert.equal(await client.get(), BYTES.toString())
  assert.deepEqual(proxy.seen, [`CONNECT ${origin.host}`], 'one tunnel for all')
})

test('with use_http the proxy sees what an https registry is asked for', async () => {
  const { cert, key } = await ca.issue()
  await using plain = await startScriptedOrigin({ blobs })
  await using origin = await startScriptedOrigin({ blobs, tls: { cert, key } })
  await using proxy = await startProxy(plain)
  await using client = await openTransport(origin, proxy.url, { useHttp: true })
  assert.equal(await client.get(), BYTES.toString())
  assert.deepEqual(proxy.seen, [`GET http://${origin.host}${PATH} ${origin.host}`])
})

test('a login goes past the proxy, or through it in a tunnel where there is no other way', async () => {
  const { cert, key } = await ca.issue()
  await using origin = await startScriptedOrigin({ blobs, tls: { cert, key } })
  await using proxy = await startProxy(origin)
  await using around = await openTransport(origin, proxy.url, { useHttp: true })
  assert.equal(await around.get(true), BYTES.toString())
  assert.deepEqual(proxy.seen, [])
  await using through = await openTransport(origin, proxy.url, { useHttp: true, fallback: false })
  assert.equal(await through.get(true), BYTES.toString())
  assert.deepEqual(proxy.seen, [`CONNECT ${origin.host}`])
})

test('what the proxy fails goes to the registry itself, unless that is not wanted', async () => {
  const { cert, key } = await ca.issue()
  for (const tls of [undefined, { cert, key }]) {
    await using origin = await startScriptedOrigin({ blobs, ...(tls === undefined ? {} : { tls }) })
    await using proxy = await startProxy(origin, 502)
    await using falling = await openTransport(origin, proxy.url)
    assert.equal(await falling.get(), BYTES.toString())
    assert.equal(proxy.seen.length, 1)
    await using strict = await openTransport(origin, proxy.url, { fallback: false })
    if (tls === undefined) assert.equal(await strict.get(), '')
    else await assert.rejects(strict.get(), isTransport)
    assert.equal(strict.state.failures.length, tls === undefined ? 0 : 1)
  }
})

test('a proxy that is known to be away is not asked', async () => {
  await using origin = await startScriptedOrigin({ blobs })
  await using proxy = await startProxy(origin)
  await using falling = await openTransport(origin, proxy.url)
  falling.state.isUsable = false
  assert.equal(await falling.get(), BYTES.toString())
  await using strict = await openTransport(origin, proxy.url, { fallback: false })
  strict.state.isUsable = false
  await assert.rejects(strict.get(), isTransport)
  assert.deepEqual(proxy.seen, [])
})

test('a proxy that cannot be reached is said so, and gone around', async () => {
  await using origin = await startScriptedOrigin({ blobs })
  const gone = await startProxy(origin)
  await gone[Symbol.asyncDispose]()
  await using client = await openTransport(origin, gone.url)
  assert.equal(await client.get(), BYTES.toString())
  assert.equal(client.state.failures.length, 1)
})
