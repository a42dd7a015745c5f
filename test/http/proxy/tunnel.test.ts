import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { pipeline } from 'node:stream/promises'
import { describe, test } from 'node:test'
import { ProxyAgent, request } from 'undici'
import { silentLogger } from '../../../src/core/index.ts'
import { until } from '../../support/until.ts'
import {
  bytes,
  echoed,
  exchange,
  listen,
  openProxy,
  openTunnel,
  text,
  upstreamError,
  type ProxyRigOptions,
} from './proxy-rig.ts'

const MIB = 1024 * 1024

/** A proxy in front of a server of bytes. */
async function openTunnels(onConnection: (socket: net.Socket) => void, options: ProxyRigOptions = {}) {
  const rig = await openProxy(options)
  const server = await listen(net.createServer({ allowHalfOpen: true }, onConnection))
  rig.egress.port = server.port
  return {
    ...rig,
    async [Symbol.asyncDispose]() {
      await rig[Symbol.asyncDispose]()
      await server.close()
    },
  }
}

const mirrorBytes = (socket: net.Socket): void => void pipeline(socket, socket).catch(() => undefined)

describe('tunnels', () => {
  test('bytes go both ways, with those that came right behind the request', async () => {
    await using rig = await openTunnels(mirrorBytes)
    const payload = randomBytes(10 * MIB)
    const { socket, head } = await openTunnel(rig.port, 'a.test:8443')
    assert.equal(head, 'HTTP/1.1 200 Connection Established\r\n\r\n')
    socket.end(payload)
    assert.ok((await bytes(socket)).equals(payload))
    const { host, port, trusted, allowed } = rig.egress.tunnelled[0]!
    assert.deepEqual({ host, port, trusted, allowed }, { host: 'a.test', port: 8443, trusted: false, allowed: false })
    assert.equal(await rig.count('tunnelled'), 1)

    const early = net.connect({ host: '127.0.0.1', port: rig.port, allowHalfOpen: true })
    early.end('CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\n\r\nearly bytes')
    assert.match(await text(early), /^HTTP\/1\.1 200 .*\r\n\r\nearly bytes$/)
    assert.equal(rig.egress.tunnelled[1]?.host, '::1')
  })

  test('the end of one direction leaves the other open', async () => {
    await using rig = await openTunnels(socket => {
      // Answers only when everything has been said.
      socket.resume().once('end', () => socket.end('last word'))
    })
    const { socket } = await openTunnel(rig.port, 'a.test:443')
    socket.end('x')
    assert.equal(await text(socket), 'last word')
    await until(() => rig.proxy.tunnels === 0)
  })

  test('a server that has said everything can still be told something', async () => {
    let told: Promise<string> | undefined
    await using rig = await openTunnels(socket => {
      told = text(socket)
      socket.end('hello')
    })
    const { socket } = await openTunnel(rig.port, 'a.test:443')
    assert.equal(await text(socket), 'hello')
    socket.end('goodbye')
    assert.equal(await told, 'goodbye')
    await until(() => rig.proxy.tunnels === 0)
  })

  test('a reset on one side ends the other', async () => {
    const upstreams: net.Socket[] = []
    await using rig = await openTunnels(socket => upstreams.push(socket.on('error', () => undefined)))
    const [first, second] = [await openTunnel(rig.port, 'a.test:443'), await openTunnel(rig.port, 'a.test:443')]
    await until(() => upstreams.length === 2)
    upstreams[0]!.resetAndDestroy()
    await once(first.socket.resume(), 'end')
    second.socket.resetAndDestroy()
    await once(upstreams[1]!.resume(), 'end')
    await until(() => rig.proxy.tunnels === 0)
  })

  test('a client that leaves while its tunnel is being opened is not connected', async () => {
    await using rig = await openTunnels(mirrorBytes)
    let asked: AbortSignal | undefined
    rig.egress.tunnel = async ({ signal }) => {
      asked = signal
      await once(signal, 'abort')
      throw signal.reason
    }
    const socket = net.connect(rig.port, '127.0.0.1')
    socket.write('CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n')
    await until(() => asked !== undefined)
    socket.resetAndDestroy()
    await until(() => asked?.aborted === true && rig.proxy.tunnels === 0)
    assert.equal(await rig.count('failed'), 0)
  })

  test('rules say whether, where to and by what right', async () => {
    await using rig = await openTunnels(mirrorBytes, {
      rules: [
        { match: '^https://denied\\.test/', action: 'deny', useHttps: false },
        { match: '^https://moved\\.test:5000/', action: 'redirect', useHttps: false, redirect: 'new.test:5001' },
        { match: '^https://direct\\.test/$', action: 'direct', useHttps: false },
      ],
    })
    assert.match(await exchange(rig.port, 'CONNECT Denied.test.:443 HTTP/1.1\r\nHost: x\r\n\r\n'), /^HTTP\/1\.1 403 /)
    for (const target of ['moved.test:5000', 'moved.test:443', 'direct.test:443'])
      (await openTunnel(rig.port, target)).socket.destroy()
    assert.deepEqual(
      rig.egress.tunnelled.map(({ host, port, trusted, allowed }) => [host, port, trusted, allowed]),
      [
        ['new.test', 5001, true, true],
        ['moved.test', 443, false, false],
        ['direct.test', 443, false, true],
      ],
    )
    assert.equal(await rig.count('denied'), 1)
  })

  test('after close() there are no tunnels', async () => {
    await using rig = await openTunnels(mirrorBytes)
    const { socket } = await openTunnel(rig.port, 'a.test:443')
    const closed = once(socket.resume(), 'end')
    rig.proxy.close()
    rig.proxy.close()
    await closed
    assert.match(await exchange(rig.port, 'CONNECT a.test:443 HTTP/1.1\r\nHost: a\r\n\r\n'), /^HTTP\/1\.1 503 /)
  })
})

describe('tunnels that are refused', () => {
  test('what the egress refuses or fails to reach is told before anything else', async () => {
    await using rig = await openProxy()
    for (const [code, status] of [
      ['ERR_ORIGIN_UNKNOWN', '403 Forbidden'],
      ['ERR_UPSTREAM_TIMEOUT', '504 Gateway Timeout'],
      ['ERR_UPSTREAM_TRANSPORT', '502 Bad Gateway'],
    ] as const) {
      rig.egress.failure = upstreamError(code)
      const answer = await exchange(rig.port, 'CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n')
      assert.ok(answer.startsWith(`HTTP/1.1 ${status}\r\n`), answer)
      assert.match(answer, /\r\nConnection: close\r\n/)
      assert.ok(answer.includes(`\r\n\r\nscripted ${code}`), answer)
    }
    assert.equal(rig.proxy.tunnels, 0)
    assert.equal(await rig.count('refused'), 1)
    assert.equal(await rig.count('failed'), 2)
  })

  test('what is no host and port is refused, line breaks in it included', async () => {
    const warnings: unknown[] = []
    await using rig = await openProxy({ log: { ...silentLogger, warn: (...all) => warnings.push(all) } })
    for (const target of ['a.test', 'a.test:0', 'http://a.test:443', 'u@a.test:443', '/v2/', 'a.test:443:1', '*']) {
      const answer = await exchange(rig.port, `CONNECT ${target} HTTP/1.1\r\nHost: a.test\r\n\r\n`)
      assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n/, target)
    }
    for (const target of ['a.test:443\r\nX-Evil: 1', 'a.test:443\nX: 1', 'a.test:443\rX']) {
      const answer = await exchange(rig.port, `CONNECT ${target} HTTP/1.1\r\nHost: a.test\r\n\r\n`)
      assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n/, JSON.stringify(target))
      assert.doesNotMatch(answer, /Evil/)
    }
    assert.equal(rig.egress.tunnelled.length, 0)
    assert.deepEqual(warnings, [])
  })

  test('a name and a password are asked for', async () => {
    await using rig = await openTunnels(mirrorBytes, { username: 'node', password: 'secret' })
    for (const header of ['', 'Proxy-Authorization: Basic bm9kZTo=\r\n', 'Proxy-Authorization: Basic\r\n']) {
      const answer = await exchange(rig.port, `CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n${header}\r\n`)
      assert.match(
        answer,
        /^HTTP\/1\.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="shoal"\r\n/,
      )
    }
    assert.equal(rig.egress.tunnelled.length, 0)
    const credentials = `Proxy-Authorization: Basic ${Buffer.from('node:secret').toString('base64')}`
    const { head, socket } = await openTunnel(rig.port, 'a.test:443', [credentials])
    assert.match(head, / 200 /)
    socket.destroy()
    assert.equal(await rig.count('unauthorised'), 3)
  })

  test('a CONNECT that comes back is stopped', async () => {
    await using rig = await openProxy()
    const { headers } = await rig.fetch('http://a.test/')
    const answer = await exchange(rig.port, `CONNECT a.test:443 HTTP/1.1\r\nHost: a\r\nVia: ${headers.via!}\r\n\r\n`)
    assert.match(answer, /^HTTP\/1\.1 508 /)
  })

  test('there are only so many at one time, and refused ones do not count', async () => {
    await using rig = await openTunnels(mirrorBytes, { maxTunnels: 2 })
    const connect = 'CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n'
    // These are not read, and so stay for a while.
    const lingering = [0, 1, 2].map(() => net.connect(rig.port, '127.0.0.1'))
    for (const socket of lingering) socket.write('CONNECT nonsense HTTP/1.1\r\nHost: x\r\n\r\n')
    const refused = async (): Promise<boolean> => (await rig.count('malformed')) === 3
    await until(refused)
    const first = await openTunnel(rig.port, 'a.test:443')
    const second = await openTunnel(rig.port, 'a.test:443')
    assert.equal(rig.proxy.tunnels, 2)
    assert.match(await rig.metrics.metrics(), /^shoal_proxy_tunnels 2$/m)
    assert.match(await exchange(rig.port, connect), /^HTTP\/1\.1 503 Service Unavailable\r\nRetry-After: 1\r\n/)
    first.socket.destroy()
    await until(() => rig.proxy.tunnels === 1)
    const third = await openTunnel(rig.port, 'a.test:443')
    assert.match(third.head, / 200 /)
    for (const { socket } of [second, third]) socket.destroy()
    for (const socket of lingering) socket.destroy()
    assert.equal(await rig.count('busy'), 1)
  })
})

test('an ordinary client gets through a tunnel: undici', async () => {
  await using rig = await openProxy()
  const agent = new ProxyAgent({ uri: `http://127.0.0.1:${rig.port}`, proxyTunnel: true })
  const { body } = await request('http://a.test/x', { dispatcher: agent })
  assert.equal(echoed(await body.text()).url, '/x')
  assert.equal(rig.egress.tunnelled[0]?.port, 80)
  await agent.close()
})
