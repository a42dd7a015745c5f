import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import net, { type AddressInfo } from 'node:net'
import { Readable, type Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { errorCode, silentLogger } from '../../src/core/index.ts'
import { TableEgress, type EgressOptions } from '../../src/upstream/index.ts'
import type { EgressTarget } from '../../src/upstream/table/entry.ts'
import { createTestCa } from '../support/test-ca.ts'

const OPTIONS: EgressOptions = { connectTimeoutMs: 2_000, idleTimeoutMs: 2_000, allowAny: false, allowPrivate: [] }
const NO_RIGHT = { trusted: false, allowed: false }
const RULE = { trusted: false, allowed: true }
const TRUSTED = { trusted: true, allowed: true }

interface Seen {
  readonly method: string | undefined
  readonly url: string | undefined
  readonly headers: readonly string[]
  readonly body: string
}

async function openServer() {
  const seen: Seen[] = []
  const server = http.createServer((request, response) => {
    void text(request).then(body => {
      seen.push({ method: request.method, url: request.url, headers: request.rawHeaders, body })
      response.writeHead(203, 'As It Came', ['X-Order', 'b', 'X-Order', 'a', 'Content-Type', 'text/x-test'])
      response.end(`got ${body}`)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    seen,
    port,
    base: new URL(`http://127.0.0.1:${port}/v2/`),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    },
  }
}

function openEgress(targets: Record<string, EgressTarget>, options: Partial<EgressOptions> = {}): TableEgress {
  const table = {
    names: () => Object.keys(targets),
    target: (name: string) => targets[name],
    targetAt: (host: string) => Object.values(targets).find(({ base }) => base.host === host),
  }
  return new TableEgress({ table, log: silentLogger }, { ...OPTIONS, ...options })
}

function targetOf(base: URL): EgressTarget {
  return { base, tls: { rejectUnauthorized: true } }
}

function request(url: string, more: { method?: string; body?: string; headers?: string[] } = {}) {
  const { method = 'GET', body, headers = ['Host', new URL(url).host] } = more
  return {
    method,
    url: new URL(url),
    headers,
    body: body === undefined ? undefined : Readable.from([Buffer.from(body)]),
    signal: new AbortController().signal,
  }
}

const isUnknown = (error: unknown): boolean => errorCode(error) === 'ERR_ORIGIN_UNKNOWN'
const isTransport = (error: unknown): boolean => errorCode(error) === 'ERR_UPSTREAM_TRANSPORT'

test('a request for a name of the table goes to where the table says, with everything as it was', async () => {
  await using server = await openServer()
  const base = new URL(`http://127.0.0.1:${server.port}/mirror/v2/`)
  const egress = openEgress({ 'registry.test': targetOf(base) })
  const headers = ['Host', 'registry.test', 'X-Mixed-Case', '1', 'x-mixed-case', '2']
  const url = 'http://registry.test/v2/a/manifests/x?ns=y'
  const answer = await egress.forward({ ...request(url, { method: 'PUT', body: 'hello', headers }), ...NO_RIGHT })
  assert.equal(answer.status, 203)
  assert.equal(answer.statusText, 'As It Came')
  assert.deepEqual(answer.headers.slice(0, 4), ['X-Order', 'b', 'X-Order', 'a'])
  assert.equal(await text(answer.body), 'got hello')
  const [seen] = server.seen
  assert.equal(seen!.method, 'PUT')
  assert.equal(seen!.url, '/mirror/v2/a/manifests/x?ns=y')
  const spelled = seen!.headers.join('|')
  assert.ok(spelled.includes(`ost|${base.host}|`) && spelled.includes('|X-Mixed-Case|1|x-mixed-case|2'), spelled)
  await egress.close()
})

test('a server of the table may also be named by where it is', async () => {
  await using server = await openServer()
  const egress = openEgress({ 'registry.test': targetOf(server.base) })
  const answer = await egress.forward({ ...request(`http://127.0.0.1:${server.port}/token?x=1`), ...NO_RIGHT })
  assert.equal(await text(answer.body), 'got ')
  assert.equal(server.seen[0]?.url, '/token?x=1')
  await egress.close()
})

test('a host that nobody has named is not reached, by requests or by tunnels', async () => {
  await using server = await openServer()
  const egress = openEgress({})
  const url = `http://127.0.0.1:${server.port}/`
  await assert.rejects(egress.forward({ ...request(url), ...NO_RIGHT }), isUnknown)
  const { signal } = new AbortController()
  await assert.rejects(egress.tunnel({ host: '127.0.0.1', port: server.port, signal, ...NO_RIGHT }), isUnknown)
  assert.equal(server.seen.length, 0)
  await egress.close()
})

test('what only an expression lets pass does not lead home, neither as an address nor as a name', async () => {
  await using server = await openServer()
  const egress = openEgress({})
  const { signal } = new AbortController()
  for (const host of ['127.0.0.1', '[::ffff:127.0.0.1]', '127.1', '[64:ff9b::7f00:1]']) {
    await assert.rejects(egress.forward({ ...request(`http://${host}:${server.port}/`), ...RULE }), isUnknown, host)
  }
  await assert.rejects(egress.forward({ ...request(`http://localhost:${server.port}/`), ...RULE }), isTransport)
  await assert.rejects(egress.tunnel({ host: 'localhost', port: server.port, signal, ...RULE }), isTransport)
  await assert.rejects(egress.tunnel({ host: '::1', port: server.port, signal, ...RULE }), isUnknown)
  assert.equal(server.seen.length, 0)
  await egress.close()
})

test('a private address that is allowed is reached', async () => {
  await using server = await openServer()
  const egress = openEgress({}, { allowPrivate: ['127.0.0.0/8'] })
  const answer = await egress.forward({ ...request(`http://localhost:${server.port}/x`), ...RULE })
  assert.equal(await text(answer.body), 'got ')
  await egress.close()
})

test('a reload changes what may be reached, and one that cannot be used changes nothing', async () => {
  await using server = await openServer()
  const egress = openEgress({})
  const url = `http://127.0.0.1:${server.port}/x`
  egress.reload({ ...OPTIONS, allowPrivate: ['127.0.0.1'] })
  assert.throws(() => egress.reload({ ...OPTIONS, allowPrivate: ['nonsense'] }))
  assert.equal((await egress.forward({ ...request(url), ...RULE })).status, 203)
  egress.reload(OPTIONS)
  await assert.rejects(egress.forward({ ...request(url), ...RULE }), isUnknown)
  await egress.close()
})

test('allow_any opens the usual ports only, and never the way home', async () => {
  await using server = await openServer()
  const egress = openEgress({}, { allowAny: true, allowPrivate: ['127.0.0.1'] })
  await assert.rejects(egress.forward({ ...request(`http://127.0.0.1:${server.port}/`), ...NO_RIGHT }), isUnknown)
  await assert.rejects(egress.forward({ ...request('http://10.0.0.1:5000/'), ...NO_RIGHT }), isUnknown)
  await egress.close()
})

test('a host that a rule has written down is reached wherever it is', async () => {
  await using server = await openServer()
  const egress = openEgress({})
  const answer = await egress.forward({ ...request(`http://127.0.0.1:${server.port}/x`), ...TRUSTED })
  assert.equal(await text(answer.body), 'got ')
  await egress.close()
})

test('where public registries lead their clients is known, as long as the registry itself is in the table', async () => {
  const isKnown = async (targets: Record<string, EgressTarget>): Promise<boolean> => {
    const egress = openEgress(targets, { connectTimeoutMs: 1 })
    const { signal } = new AbortController()
    const tunnel = egress.tunnel({ host: 'auth.docker.io', port: 443, signal, ...NO_RIGHT })
    const code = await tunnel.then(
      socket => {
        socket.destroy()
        return undefined
      },
      (error: unknown) => errorCode(error),
    )
    await egress.close()
    return code !== 'ERR_ORIGIN_UNKNOWN'
  }
  assert.equal(await isKnown({ 'docker.io': targetOf(new URL('https://registry-1.docker.io/v2/')) }), true)
  assert.equal(await isKnown({ 'quay.io': targetOf(new URL('https://quay.io/v2/')) }), false)
})

test('a tunnel carries bytes both ways and may be half closed', async () => {
  const server = net.createServer({ allowHalfOpen: true }, socket => {
    let heard = ''
    socket.on('data', (piece: Buffer) => (heard += piece.toString()))
    socket.once('end', () => socket.end(`heard ${heard}`))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const egress = openEgress({ 'registry.test': targetOf(new URL(`https://127.0.0.1:${port}/v2/`)) })
  const { signal } = new AbortController()
  const socket: Duplex = await egress.tunnel({ host: 'registry.test', port: 443, signal, ...NO_RIGHT })
  socket.end('bytes')
  assert.equal(await text(socket), 'heard bytes')
  server.close()
  await egress.close()
})

test('what cannot be reached fails as what it is, and an abort is the caller’s own', async () => {
  const probe = net.createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as AddressInfo
  await new Promise(resolve => probe.close(resolve))
  const egress = openEgress({ 'registry.test': targetOf(new URL(`https://127.0.0.1:${port}/v2/`)) })
  const { signal } = new AbortController()
  await assert.rejects(egress.tunnel({ host: 'registry.test', port: 443, signal, ...NO_RIGHT }), isTransport)
  await assert.rejects(egress.forward({ ...request('http://registry.test/v2/'), ...NO_RIGHT }), isTransport)
  const reason = new Error('left')
  const aborted = AbortSignal.abort(reason)
  const left = { host: 'registry.test', port: 443, signal: aborted, ...NO_RIGHT }
  await assert.rejects(egress.tunnel(left), thrown => thrown === reason)
  const leaving = { ...request('http://registry.test/v2/'), ...NO_RIGHT, signal: aborted }
  await assert.rejects(egress.forward(leaving), thrown => thrown === reason)
  await egress.close()
  await assert.rejects(
    egress.forward({ ...request('http://registry.test/v2/'), ...NO_RIGHT }),
    (error: unknown) => errorCode(error) === 'ERR_CLOSED',
  )
})

test('where the public registries lead is reached at the usual ports only', async () => {
  const egress = openEgress({ 'docker.io': targetOf(new URL('https://registry-1.docker.io/v2/')) })
  const { signal } = new AbortController()
  await assert.rejects(egress.tunnel({ host: 'auth.docker.io', port: 22, signal, ...NO_RIGHT }), isUnknown)
  await egress.close()
})

test('a connection made with the TLS options of one entry is not for another, nor for what has become of it', async () => {
  await using ca = await createTestCa()
  const server = https.createServer(await ca.issue(), (_request, response) => response.end('secret'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const base = new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}/v2/`)
  const targets: Record<string, EgressTarget> = { 'lax.test': { base, tls: { rejectUnauthorized: false } } }
  const egress = openEgress(targets)
  const answer = await egress.forward({ ...request('http://lax.test/v2/'), ...NO_RIGHT })
  assert.equal(await text(answer.body), 'secret')
  targets['strict.test'] = targetOf(base)
  await assert.rejects(egress.forward({ ...request('http://strict.test/v2/'), ...NO_RIGHT }), isTransport)
  targets['lax.test'] = targetOf(base)
  await assert.rejects(egress.forward({ ...request('http://lax.test/v2/'), ...NO_RIGHT }), isTransport)
  await egress.close()
  server.closeAllConnections()
  await new Promise(resolve => server.close(resolve))
})
