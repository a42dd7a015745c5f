import assert from 'node:assert/strict'
import { once } from 'node:events'
import http, { type IncomingMessage } from 'node:http'
import net from 'node:net'
import path from 'node:path'
import { after, test } from 'node:test'
import tls, { type SecureContext, type TLSSocket } from 'node:tls'
import { ProxyAgent, request as undiciRequest } from 'undici'
import { silentLogger, systemClock } from '../../../src/core/index.ts'
import { initProxyAuthority } from '../../../src/http/proxy/authority-files.ts'
import { CertificateAuthority } from '../../../src/http/proxy/authority.ts'
import { Interceptor } from '../../../src/http/proxy/interception.ts'
import { run } from '../../support/child.ts'
import { createTestCa } from '../../support/test-ca.ts'
import { skipWithout, temporaryDirectory } from '../../support/tools.ts'
import { until } from '../../support/until.ts'
import { BLOB_PATH, REGISTRY, echoed, listen, openProxy, openTunnel, text, type ProxyRigOptions } from './proxy-rig.ts'

const folder = await temporaryDirectory()
after(() => folder[Symbol.asyncDispose]())
await initProxyAuthority({ clock: systemClock }, { directory: folder.path })
const authority = await CertificateAuthority.open({ clock: systemClock }, { directory: folder.path })

/** A proxy that opens every tunnel. */
function openInterceptor(options: ProxyRigOptions = {}) {
  return openProxy({ authority, intercept: ['*'], ...options })
}

/** A tunnel, and TLS in it with a client that trusts the authority. */
async function openTls(port: number, host: string, options: tls.ConnectionOptions = {}): Promise<TLSSocket> {
  const { socket } = await openTunnel(port, host)
  const name = host.slice(0, host.lastIndexOf(':'))
  const secured = tls.connect({ socket, servername: name, ca: authority.certificate, ...options })
  secured.on('error', () => undefined)
  await once(secured, 'secureConnect')
  return secured
}

test('requests inside are answered like those for URLs: cached, forwarded, denied', async () => {
  const rules = [{ match: '^https://a\\.test:8443/denied', action: 'deny', useHttps: false }] as const
  await using rig = await openInterceptor({ rules })
  const agent = new ProxyAgent({ uri: `http://127.0.0.1:${rig.port}`, requestTls: { ca: authority.certificate } })
  const get = async (url: string) => {
    const { statusCode, body } = await undiciRequest(url, { dispatcher: agent, headers: { authorization: 'Bearer t' } })
    return { status: statusCode, body: await body.text() }
  }
  assert.equal((await get(`https://${REGISTRY}${BLOB_PATH}`)).body, 'cached library/app')
  assert.equal(rig.served[0]?.registry, REGISTRY)
  const seen = echoed((await get('https://a.test:8443/x?y=z')).body)
  assert.equal(seen.url, '/x?y=z')
  assert.deepEqual(seen.headers.slice(seen.headers.indexOf('authorization')).slice(0, 2), ['authorization', 'Bearer t'])
  const { url, trusted, allowed } = rig.egress.forwarded[0]!
  assert.deepEqual([url.href, trusted, allowed], ['https://a.test:8443/x?y=z', false, false])
  assert.equal((await get('https://a.test:8443/denied')).status, 403)
  assert.equal(rig.egress.tunnelled.length, 0)
  assert.ok((await rig.count('intercepted')) >= 2)
  await agent.close()
})

test('only named hosts are opened, and none without an authority', async () => {
  await using rig = await openInterceptor({ intercept: ['*.test:443'] })
  await using plain = await openProxy({ intercept: ['*'] })
  const tunnelled = async (port: number, target: string, egress: typeof rig.egress): Promise<boolean> => {
    const before = egress.tunnelled.length
    const { socket } = await openTunnel(port, target)
    socket.destroy()
    return egress.tunnelled.length > before
  }
  assert.equal(await tunnelled(rig.port, 'a.test:443', rig.egress), false)
  assert.equal(await tunnelled(rig.port, 'a.test:444', rig.egress), true)
  assert.equal(await tunnelled(rig.port, 'a.example:443', rig.egress), true)
  assert.equal(await tunnelled(plain.port, 'a.test:443', plain.egress), true)
})

test('the certificate is for the host of the CONNECT, whatever the client calls it inside', async () => {
  await using rig = await openInterceptor()
  for (const [target, servername, name] of [
    ['registry.test:443', 'registry.test', 'DNS:registry.test'],
    ['127.0.0.1:443', '', 'IP Address:127.0.0.1'],
    ['[::1]:443', '', 'IP Address:0:0:0:0:0:0:0:1'],
    ['registry.test:443', 'other.test', 'DNS:registry.test'],
  ] as const) {
    const socket = await openTls(rig.port, target, { servername, checkServerIdentity: () => undefined })
    assert.ok(socket.authorized)
    assert.equal(socket.getPeerX509Certificate()?.subjectAltName, name)
    socket.destroy()
  }
})

test('HTTP/1.1 is what is spoken inside, and a client that insists on HTTP/2 is told', async () => {
  await using rig = await openInterceptor()
  const socket = await openTls(rig.port, 'a.test:443', { ALPNProtocols: ['h2', 'http/1.1'] })
  assert.equal(socket.alpnProtocol, 'http/1.1')
  socket.destroy()
  await assert.rejects(openTls(rig.port, 'a.test:443', { ALPNProtocols: ['h2'] }))
  // Neither has asked for anything.
  const counted = async (): Promise<boolean> => (await rig.count('untrusted')) === 2
  await until(counted)
})

test('Host and absolute URLs inside do not lead elsewhere', async () => {
  await using rig = await openInterceptor()
  const socket = await openTls(rig.port, 'a.test:443')
  socket.write('GET //b.test/x HTTP/1.1\r\nHost: b.test\r\n\r\nGET http://b.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n')
  socket.write('OPTIONS * HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n')
  const answers = await text(socket)
  assert.deepEqual(
    [...answers.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status),
    ['200', '400', '400'],
  )
  assert.match(answers, /"Host","a\.test"/)
  assert.deepEqual(
    rig.egress.forwarded.map(({ url }) => url.href),
    ['https://a.test//b.test/x'],
  )
})

test('a tunnel inside an opened tunnel is cut', async () => {
  await using rig = await openInterceptor()
  const socket = await openTls(rig.port, 'a.test:443')
  socket.write('CONNECT b.test:443 HTTP/1.1\r\nHost: b.test\r\n\r\n')
  assert.equal(await text(socket), '')
  assert.equal(rig.egress.tunnelled.length, 0)
})

test('a name and a password are asked for outside, and not again inside', async () => {
  await using rig = await openInterceptor({ username: 'node', password: 'secret' })
  const token = `Basic ${Buffer.from('node:secret').toString('base64')}`
  const requestTls = { ca: authority.certificate }
  const agent = new ProxyAgent({ uri: `http://127.0.0.1:${rig.port}`, requestTls, token })
  const { statusCode, body } = await undiciRequest('https://a.test/', { dispatcher: agent })
  assert.equal(statusCode, 200)
  assert.doesNotMatch(await body.text(), /proxy-authorization/i)
  await agent.close()
})

test('bodies stream both ways, and pipelined requests wait their turn', async () => {
  await using rig = await openInterceptor()
  const socket = await openTls(rig.port, 'a.test:443')
  const put = (body: string, more = ''): string =>
    `PUT /${body} HTTP/1.1\r\nHost: a.test\r\nContent-Length: ${body.length}\r\n${more}\r\n${body}`
  socket.write(put('one') + put('two') + put('three', 'Connection: close\r\n'))
  const answers = await text(socket)
  assert.deepEqual(
    [...answers.matchAll(/"body":"(\w+)"/g)].map(([, body]) => body),
    ['one', 'two', 'three'],
  )
  await until(() => rig.proxy.tunnels === 0)
})

test('a client that leaves takes its request along', async () => {
  let asked = false
  await using rig = await openInterceptor({ upstream: () => void (asked = true) })
  const socket = await openTls(rig.port, 'a.test:443')
  socket.write('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
  await until(() => asked)
  socket.destroy()
  await until(() => rig.egress.forwarded[0]?.signal.aborted === true)
})

test('an answer that is cut upstream is cut inside', async () => {
  await using rig = await openInterceptor({
    upstream: (_request, response) => {
      response.writeHead(200, { 'Content-Length': 10 })
      response.write('abc', () => response.destroy())
    },
  })
  const socket = await openTls(rig.port, 'a.test:443')
  const request = http.get({ createConnection: () => socket, path: '/', host: 'a.test' })
  const [answer] = (await once(request, 'response')) as [IncomingMessage]
  await assert.rejects(text(answer), { code: 'ECONNRESET' })
})

test('a client that does not trust the authority is counted, and nothing is asked for it', async () => {
  await using rig = await openInterceptor()
  const { socket } = await openTunnel(rig.port, 'a.test:443')
  const secured = tls.connect({ socket, servername: 'a.test' })
  const [error] = (await once(secured, 'error')) as [NodeJS.ErrnoException]
  assert.match(String(error.code), /UNABLE_TO_VERIFY|SELF_SIGNED/)
  const counted = async (): Promise<boolean> => (await rig.count('untrusted')) === 1
  await until(counted)
  await until(() => rig.proxy.tunnels === 0)
  assert.equal(rig.egress.forwarded.length, 0)
})

test('a client that speaks no TLS is closed and counted', async () => {
  await using rig = await openInterceptor()
  const { socket } = await openTunnel(rig.port, 'a.test:443')
  socket.write('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
  await once(socket.resume(), 'end')
  const counted = async (): Promise<boolean> => (await rig.count('untrusted')) === 1
  await until(counted)
  await until(() => rig.proxy.tunnels === 0)
  assert.equal(rig.egress.forwarded.length, 0)
})

test('a handshake may begin before the answer to CONNECT', async () => {
  await using rig = await openInterceptor()
  // Sends the first message of its client right behind the CONNECT, in one piece, and takes the answer to it away.
  const hasty = await listen(
    net.createServer(client => {
      client.once('data', (hello: Buffer) => {
        const proxy = net.connect(rig.port, '127.0.0.1').on('error', () => undefined)
        proxy.write(Buffer.concat([Buffer.from('CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n'), hello]))
        proxy.once('data', (answer: Buffer) => {
          client.write(answer.subarray(answer.indexOf('\r\n\r\n') + 4))
          client.pipe(proxy).pipe(client)
        })
      })
    }),
  )
  const socket = tls.connect({ port: hasty.port, host: '127.0.0.1', servername: 'a.test', ca: authority.certificate })
  await once(socket, 'secureConnect')
  socket.write('GET /early HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n')
  assert.match(await text(socket), /"url":"\/early"/)
  await hasty.close()
})

test('close() cuts opened tunnels', async () => {
  await using rig = await openInterceptor()
  const socket = await openTls(rig.port, 'a.test:443')
  const closed = once(socket.resume(), 'end')
  rig.proxy.close()
  await closed
})

test('without a certificate there is a refusal, and no half-open tunnel', async () => {
  const broken = { leafFor: () => Promise.reject(new Error('no key')) } as unknown as CertificateAuthority
  await using rig = await openInterceptor({ authority: broken })
  const { head, socket } = await openTunnel(rig.port, 'a.test:443')
  assert.match(head, /^HTTP\/1\.1 500 /)
  socket.destroy()
  assert.equal(await rig.count('failed'), 1)
})

test('a client that leaves while its certificate is made gets nothing', async () => {
  let make: ((context: SecureContext) => void) | undefined
  const made = new Promise<SecureContext>(resolve => (make = resolve))
  const slow = { leafFor: () => made } as unknown as CertificateAuthority
  await using rig = await openInterceptor({ authority: slow })
  const socket = net.connect(rig.port, '127.0.0.1')
  socket.write('CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n')
  await until(() => rig.proxy.tunnels === 1)
  socket.resetAndDestroy()
  await until(() => rig.proxy.tunnels === 0)
  make?.(await authority.leafFor('a.test'))
  const counted = async (): Promise<boolean> => (await rig.count('intercepted')) === 1
  await until(counted)
  assert.equal(await rig.count('untrusted'), 0)
})

for (const silent of ['before the handshake', 'after the handshake']) {
  test(`a client that says nothing ${silent} is closed after a while`, async () => {
    let untrusted = 0
    const interceptor = new Interceptor(
      { authority, handle: () => assert.fail(), onUntrusted: () => (untrusted += 1), log: silentLogger },
      { firstRequestMs: 200 },
    )
    const server = await listen(
      http.createServer().on('connect', (_request, socket, head) => {
        interceptor.accept(socket, head, new URL('https://a.test/')).catch(() => assert.fail())
      }),
    )
    const { socket } = await openTunnel(server.port, 'a.test:443')
    const client = silent.startsWith('before')
      ? socket
      : tls.connect({ socket, servername: 'a.test', ca: authority.certificate })
    await once(client.resume(), 'end')
    await until(() => untrusted === 1)
    await server.close()
  })
}

test('curl trusts the authority and nothing else', { skip: await skipWithout(['curl', 'openssl']) }, async () => {
  await using rig = await openInterceptor()
  await using other = await createTestCa()
  const curl = (ca: string) =>
    run('curl', ['-sS', '--noproxy', '', '-x', `http://127.0.0.1:${rig.port}`, '--cacert', ca, 'https://a.test/x'])
  const { stdout } = await curl(path.join(folder.path, 'ca.crt'))
  assert.equal(echoed(stdout).url, '/x')
  await assert.rejects(curl(other.caFile), /certificate/)
})
