import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import http, { type IncomingMessage } from 'node:http'
import net from 'node:net'
import { PassThrough } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { describe, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { ProxyAgent, request as undiciRequest } from 'undici'
import { silentLogger, type Logger } from '../../../src/core/index.ts'
import { TableEgress } from '../../../src/upstream/index.ts'
import { until } from '../../support/until.ts'
import {
  BLOB_PATH,
  DIGEST,
  REGISTRY,
  bytes,
  echoed,
  exchange,
  listen,
  openProxy,
  text,
  upstreamError,
} from './proxy-rig.ts'

const MIB = 1024 * 1024
/** More than the kernel and the streams between two ends hold. */
const MAX_PRODUCED = 100 * MIB
const BLOB = `http://${REGISTRY}${BLOB_PATH}`

/** Remembers the event words of one level. */
function listening(level: 'debug' | 'warn'): { log: Logger; events: string[] } {
  const events: string[] = []
  const log: Logger = { ...silentLogger, [level]: (_fields: object, event: string) => events.push(event) }
  return { log, events }
}

describe('what comes from the cache', () => {
  test('a blob of a registry, by GET and HEAD', async () => {
    await using rig = await openProxy()
    const asked = { registry: REGISTRY, repository: 'library/app', digest: DIGEST }
    assert.equal((await rig.fetch(BLOB)).body, 'cached library/app')
    assert.equal((await rig.fetch(`${BLOB}?from=x`, { method: 'HEAD' })).status, 200)
    assert.deepEqual(rig.served, [asked, asked])
    assert.equal(rig.egress.forwarded.length, 0)
    assert.equal(await rig.count('cached'), 2)
  })

  test('nothing else, and no blob of a host that is no registry', async () => {
    await using rig = await openProxy()
    for (const [url, method] of [
      [BLOB, 'DELETE'],
      [BLOB, 'POST'],
      [`http://${REGISTRY}/v2/library/app/manifests/latest`, 'GET'],
      [`http://${REGISTRY}/v2/`, 'GET'],
      [`http://other.test${BLOB_PATH}`, 'GET'],
      [`http://${REGISTRY}:5000${BLOB_PATH}`, 'GET'],
    ] as const) {
      assert.equal((await rig.fetch(url, { method })).status, 200)
      assert.equal(rig.egress.forwarded.at(-1)?.url.href, url)
    }
    assert.deepEqual(rig.served, [])
    assert.equal(await rig.count('forwarded'), 6)
  })

  test('by rule: cache and redirect as without one, direct only for who insists', async () => {
    await using rig = await openProxy()
    const from = async (
      rules: Parameters<typeof rig.proxy.setRules>[0],
      headers: readonly string[] = [],
      method = 'GET',
    ) => {
      rig.proxy.setRules(rules)
      const before = rig.served.length
      await rig.fetch(BLOB, { headers, method })
      return rig.served.length > before ? 'cache' : 'origin'
    }
    const insist = ['X-Dragonfly-Use-P2P', 'True']
    assert.equal(await from([{ match: 'blobs/sha256', action: 'cache', useHttps: true }]), 'cache')
    assert.equal(await from([{ match: 'blobs/sha256', action: 'direct', useHttps: false }]), 'origin')
    assert.equal(await from([{ match: '.', action: 'direct', useHttps: false }], insist), 'cache')
    assert.equal(await from([{ match: '.', action: 'direct', useHttps: false }], insist, 'HEAD'), 'origin')
    assert.equal(
      await from([{ match: '.', action: 'direct', useHttps: false }], ['X-Dragonfly-Use-P2P', 'false']),
      'origin',
    )
    assert.equal(
      await from([{ match: REGISTRY, action: 'redirect', useHttps: false, redirect: 'other.test' }]),
      'origin',
    )
    assert.equal(await from([{ match: '.', action: 'redirect', useHttps: false, redirect: 'docker.io' }]), 'cache')
    assert.equal(rig.served.at(-1)?.registry, 'docker.io')
    assert.equal(await from([{ match: '.', action: 'deny', useHttps: false }], insist), 'origin')
  })

  test('a rule for the cache does not open other hosts, and says why it did nothing', async () => {
    const { log, events } = listening('debug')
    await using rig = await openProxy({ log, rules: [{ match: 'blobs', action: 'cache', useHttps: false }] })
    await rig.fetch(`http://169.254.169.254${BLOB_PATH}`)
    assert.deepEqual(rig.served, [])
    const [forwarded] = rig.egress.forwarded
    assert.deepEqual([forwarded?.trusted, forwarded?.allowed], [false, false])
    assert.deepEqual(events, ['not cached: no blob of a registry'])
  })

  test('a failure of the cache is an answer', async () => {
    await using rig = await openProxy({ serveBlob: () => Promise.reject(upstreamError('ERR_ORIGIN_UNKNOWN')) })
    const answer = await rig.fetch(BLOB)
    assert.equal(answer.status, 403)
    assert.equal(answer.headers['x-dragonfly-error-type'], 'proxy')
  })

  test('the cache learns that a client has left', async () => {
    let left: Promise<unknown> | undefined
    await using rig = await openProxy({
      serveBlob: async (_request, response, _asked, signal) => {
        response.write('x')
        left = once(signal, 'abort')
        await left
      },
    })
    const request = http.get({ host: '127.0.0.1', port: rig.port, path: BLOB, agent: false })
    request.on('error', () => undefined)
    await once(request, 'response')
    request.destroy()
    await left
  })
})

describe('forwarding', () => {
  test('a request goes through as it is, and so does the answer', async () => {
    await using rig = await openProxy({
      upstream: (request, response) => {
        response.sendDate = false
        const seen = JSON.stringify({ url: request.url, method: request.method, headers: request.rawHeaders })
        response.writeHead(418, 'Short And Stout', [
          'X-One',
          '1',
          'x-one',
          '2',
          'Content-Encoding',
          'made-up',
          'Seen',
          seen,
        ])
        response.end('tea')
      },
    })
    const headers = ['X-First', 'a', 'x-FIRST', 'b', 'Authorization', 'Bearer t', 'X-Dragonfly-Tag', 'x']
    const answer = await rig.fetch('http://a.test:81/x/%2F?q=%20&r', { method: 'PROPFIND', headers })
    assert.equal(answer.status, 418)
    assert.equal(answer.body, 'tea')
    assert.deepEqual(answer.raw.slice(0, 6), ['X-One', '1', 'x-one', '2', 'Content-Encoding', 'made-up'])
    assert.equal(answer.headers.date, undefined)
    assert.match(answer.headers.via ?? '', /^1\.1 shoal-test$/)
    const seen = echoed(answer.headers['seen'] as string)
    assert.equal(seen.url, '/x/%2F?q=%20&r')
    assert.equal(seen.method, 'PROPFIND')
    const [host, name, ...rest] = seen.headers
    assert.deepEqual([host, name], ['Host', 'a.test:81'])
    assert.deepEqual(rest.slice(0, 6), headers.slice(0, 6))
    assert.match(seen.headers.join('\n'), /\nVia\n1\.1 shoal-test(\n|$)/)
    assert.doesNotMatch(seen.headers.join('\n'), /dragonfly/i)
  })

  test('an ordinary client gets through: undici in absolute-form', async () => {
    await using rig = await openProxy()
    const agent = new ProxyAgent({ uri: `http://127.0.0.1:${rig.port}`, proxyTunnel: false })
    const answer = await undiciRequest('http://a.test/x', { dispatcher: agent, method: 'PUT', body: 'payload' })
    const seen = echoed(await answer.body.text())
    assert.deepEqual([seen.method, seen.url, seen.body], ['PUT', '/x', 'payload'])
    await agent.close()
  })

  test('the Host of a request has no say', async () => {
    await using rig = await openProxy()
    const answer = await exchange(rig.port, 'GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n')
    assert.equal(rig.egress.forwarded[0]?.url.host, 'a.test')
    assert.match(answer, /"Host","a\.test"/)
    assert.doesNotMatch(answer, /b\.test/)
  })

  test('a rule says where to and by what right', async () => {
    await using rig = await openProxy()
    const sent = async (rule: Parameters<typeof rig.proxy.setRules>[0][number], url: string) => {
      rig.proxy.setRules([rule])
      await rig.fetch(url)
      const { url: to, trusted, allowed } = rig.egress.forwarded.at(-1)!
      return [to.href, trusted, allowed]
    }
    assert.deepEqual(await sent({ match: 'a', action: 'direct', useHttps: true }, 'http://a.test/x?y'), [
      'https://a.test/x?y',
      false,
      true,
    ])
    const redirect = { match: 'a', action: 'redirect', useHttps: false, redirect: 'm.test:81' } as const
    assert.deepEqual(await sent(redirect, 'http://a.test/x?y'), ['http://m.test:81/x?y', true, true])
    assert.deepEqual(await sent(redirect, 'http://c.test/x?y'), ['http://c.test/x?y', false, false])
  })

  test('bad new rules leave the old ones in force', async () => {
    await using rig = await openProxy({ rules: [{ match: '.', action: 'deny', useHttps: false }] })
    assert.throws(() => rig.proxy.setRules([{ match: '(', action: 'cache', useHttps: false }]), {
      code: 'ERR_CONFIG_INVALID',
    })
    assert.equal((await rig.fetch('http://a.test/')).status, 403)
  })

  test('10 MiB go each way', async () => {
    await using rig = await openProxy({
      upstream: (request, response) => {
        response.writeHead(200, { 'Content-Length': request.headers['content-length'] })
        pipeline(request, response).catch(() => undefined)
      },
    })
    const payload = randomBytes(10 * MIB)
    const request = http.request({
      host: '127.0.0.1',
      port: rig.port,
      path: 'http://a.test/upload',
      method: 'PATCH',
      headers: { 'Content-Length': payload.length },
      agent: false,
    })
    request.end(payload)
    const [answer] = (await once(request, 'response')) as [IncomingMessage]
    assert.equal(answer.headers['content-length'], String(payload.length))
    assert.ok((await bytes(answer)).equals(payload))
  })

  test('an upload goes no faster than the origin reads it', async () => {
    await using rig = await openProxy({ upstream: request => request.on('error', () => undefined) })
    const request = http.request({
      host: '127.0.0.1',
      port: rig.port,
      path: 'http://a.test/',
      method: 'PUT',
      agent: false,
    })
    const source = endless()
    const sent = pipeline(source.chunks, request)
    await settled(() => source.produced())
    assert.ok(source.produced() < MAX_PRODUCED, String(source.produced()))
    request.destroy()
    await assert.rejects(sent)
  })

  test('an answer goes no faster than the client reads it', async () => {
    const source = endless()
    await using rig = await openProxy({
      upstream: (_request, response) => void pipeline(source.chunks, response).catch(() => undefined),
    })
    const request = http.get({ host: '127.0.0.1', port: rig.port, path: 'http://a.test/', agent: false })
    await once(request, 'response')
    await settled(() => source.produced())
    assert.ok(source.produced() < MAX_PRODUCED, String(source.produced()))
    request.destroy()
  })

  test('a chunked upload stays one', async () => {
    await using rig = await openProxy()
    const answer = await exchange(
      rig.port,
      'POST http://a.test/x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
    )
    assert.match(answer, /"body":"abc"/)
    assert.match(answer, /"Transfer-Encoding","chunked"/)
  })

  test('an upload that waits for a word gets it', async () => {
    await using rig = await openProxy()
    const socket = net.connect(rig.port, '127.0.0.1')
    socket.write(
      'PUT http://a.test/x HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n',
    )
    const [first] = (await once(socket, 'data')) as [Buffer]
    assert.match(first.toString(), /^HTTP\/1\.1 100 Continue\r\n/)
    socket.write('abc')
    const rest = await text(socket)
    assert.match(rest, /"body":"abc"/)
    assert.doesNotMatch(rest, /expect/i)
  })

  test('HEAD, 204 and 304 have no body, and the connection goes on', async () => {
    await using rig = await openProxy({
      upstream: (request, response) => {
        if (request.method === 'HEAD') response.writeHead(200, { 'Content-Length': 12345 }).end()
        else response.writeHead(Number(request.url?.slice(1)), { ETag: '"x"' }).end()
      },
    })
    const line = (method: string, path: string, more = ''): string =>
      `${method} http://a.test${path} HTTP/1.1\r\nHost: a.test\r\n${more}\r\n`
    const answers = await exchange(
      rig.port,
      line('HEAD', '/') + line('GET', '/204') + line('GET', '/304') + line('GET', '/404', 'Connection: close\r\n'),
    )
    assert.deepEqual(
      [...answers.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status),
      ['200', '204', '304', '404'],
    )
    assert.match(answers, /Content-Length: 12345\r\n/)
  })

  test('a 304 that tells the length of what it stands for is passed on, through the real way out too', async () => {
    const head = 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 500\r\n'
    const origin = await listen(net.createServer(socket => socket.once('data', () => socket.write(`${head}\r\n`))))
    const egress = new TableEgress(
      { table: { target: () => undefined, targetAt: () => undefined, names: () => [] }, log: silentLogger },
      { connectTimeoutMs: 5000, idleTimeoutMs: 5000, allowAny: false, allowPrivate: [] },
    )
    await using rig = await openProxy()
    rig.egress.answer = asked =>
      egress.forward({ ...asked, url: new URL(`http://127.0.0.1:${origin.port}/`), trusted: true })
    const answer = await exchange(rig.port, 'GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n')
    assert.ok(answer.startsWith(head), answer)
    assert.ok(answer.endsWith('\r\n\r\n'))
    await origin.close()
    await egress.close()
  })

  test('an early answer to an upload is passed on', async () => {
    await using rig = await openProxy({
      upstream: (_request, response) => response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="r"' }).end('no'),
    })
    const request = http.request({
      host: '127.0.0.1',
      port: rig.port,
      path: 'http://a.test/x',
      method: 'PUT',
      agent: false,
    })
    request.on('error', () => undefined)
    request.write('beginning')
    const [answer] = (await once(request, 'response')) as [IncomingMessage]
    assert.equal(answer.statusCode, 401)
    assert.equal(answer.headers['www-authenticate'], 'Basic realm="r"')
    assert.equal(await text(answer), 'no')
    request.destroy()
  })

  test('a client that leaves in the middle of an upload takes the upstream request along', async () => {
    const { log, events } = listening('warn')
    let aborted: Promise<unknown> | undefined
    await using rig = await openProxy({
      log,
      upstream: (request, response) => {
        request.on('error', () => undefined)
        aborted = once(response, 'close')
      },
    })
    const socket = net.connect(rig.port, '127.0.0.1')
    socket.write('PUT http://a.test/x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc')
    await until(() => aborted !== undefined)
    socket.destroy()
    await aborted
    assert.equal(rig.egress.forwarded[0]?.signal.aborted, true)
    assert.deepEqual(events, [])
  })

  test('a client that leaves in the middle of an answer takes the upstream request along', async () => {
    const { log, events } = listening('warn')
    let closed: Promise<unknown> | undefined
    await using rig = await openProxy({
      log,
      upstream: (_request, response) => {
        closed = once(response, 'close')
        response.write('x')
      },
    })
    const request = http.get({ host: '127.0.0.1', port: rig.port, path: 'http://a.test/', agent: false })
    request.on('error', () => undefined)
    await once(request, 'response')
    request.destroy()
    await closed
    await until(() => rig.egress.forwarded[0]?.signal.aborted === true)
    assert.deepEqual(events, [])
  })

  for (const framing of ['Content-Length: 10\r\n', 'Transfer-Encoding: chunked\r\n']) {
    test(`an answer that is cut upstream is cut for the client: ${framing.trim()}`, async () => {
      const { log, events } = listening('warn')
      await using rig = await openProxy({
        log,
        upstream: (_request, response) => {
          response.socket?.write(`HTTP/1.1 200 OK\r\n${framing}\r\n${framing.startsWith('T') ? '3\r\nabc\r\n' : 'abc'}`)
          response.socket?.end()
        },
      })
      await assert.rejects(rig.fetch('http://a.test/'), { code: 'ECONNRESET' })
      await until(() => events.length > 0)
      assert.deepEqual(events, ['answer cut'])
      assert.equal(await rig.count('forwarded'), 1)
    })
  }

  test('a head that cannot be passed on is a bad gateway', async () => {
    await using rig = await openProxy()
    for (const head of [
      { status: 200, statusText: 'a\nb', headers: [] },
      { status: 200, statusText: 'OK', headers: ['X', 'a\nb'] },
      { status: 1200, statusText: '', headers: [] },
    ]) {
      const body = new PassThrough()
      rig.egress.answer = () => Promise.resolve({ ...head, body })
      const answer = await rig.fetch('http://a.test/')
      assert.equal(answer.status, 502)
      assert.match(answer.body, /cannot be passed on/)
      assert.ok(body.destroyed)
    }
  })
})

describe('refusals', () => {
  test('what the egress refuses or fails to reach has its status, in the format of registries', async () => {
    await using rig = await openProxy()
    for (const [code, status, type] of [
      ['ERR_ORIGIN_UNKNOWN', 403, 'proxy'],
      ['ERR_UPSTREAM_TIMEOUT', 504, 'dfdaemon'],
      ['ERR_UPSTREAM_TRANSPORT', 502, 'dfdaemon'],
    ] as const) {
      rig.egress.failure = upstreamError(code)
      const answer = await rig.fetch('http://a.test/')
      assert.equal(answer.status, status)
      assert.equal(answer.headers['x-dragonfly-error-type'], type)
      const { errors } = JSON.parse(answer.body) as { errors: { message: string }[] }
      assert.match(errors[0]!.message, new RegExp(code))
    }
    rig.egress.failure = new TypeError('a secret of the implementation')
    const answer = await rig.fetch('http://a.test/', { method: 'POST', body: 'x' })
    assert.equal(answer.status, 500)
    assert.equal(answer.headers.connection, 'close')
    assert.doesNotMatch(answer.body, /secret/)
    assert.equal(await rig.count('refused'), 1)
    assert.equal(await rig.count('failed'), 3)
  })

  test('a redirect that makes no URL is a failure that clients fall back from', async () => {
    const rule = { match: '//([^/]*)/.*', action: 'redirect', useHttps: false, redirect: '//x@$1/' } as const
    await using rig = await openProxy({ rules: [rule] })
    assert.equal((await rig.fetch('http://a.test/x')).status, 503)
  })

  test('a rule denies', async () => {
    await using rig = await openProxy({ rules: [{ match: '^http://a\\.test/', action: 'deny', useHttps: false }] })
    for (const url of ['http://a.test/x', 'http://A.TEST:80/x', 'http://a.test./x', 'http://a.test/']) {
      const answer = await rig.fetch(url)
      assert.equal(answer.status, 403, url)
      assert.equal(answer.headers['x-dragonfly-error-type'], 'proxy')
    }
    assert.equal((await rig.fetch('http://b.test/')).status, 200)
    assert.equal(await rig.count('denied'), 4)
  })

  test('what is no URL is refused', async () => {
    await using rig = await openProxy()
    for (const url of ['http://user:secret@a.test/', 'http:///x', 'ftp://a.test/', 'http://a.test:0/']) {
      const answer = await rig.fetch(url)
      assert.equal(answer.status, 400, url)
      assert.doesNotMatch(answer.body, /secret/)
    }
    assert.match(await exchange(rig.port, 'GET http://a.test/\r\nConnection: close\r\n\r\n'), /^HTTP\/1\.1 400 /)
    assert.equal(rig.egress.forwarded.length, 0)
    assert.equal(await rig.count('malformed'), 5)
  })

  test('a path is matched up to 8 KiB, the query does not count', async () => {
    await using rig = await openProxy()
    const path = (length: number): string => `http://a.test/${'x'.repeat(length - 'http://a.test/'.length)}`
    assert.equal((await rig.fetch(path(8192))).status, 200)
    assert.equal((await rig.fetch(path(8193))).status, 414)
    assert.equal((await rig.fetch(`${path(4000)}?${'x'.repeat(6000)}`)).status, 200)
  })

  test('a request that comes back is stopped', async () => {
    await using rig = await openProxy()
    const { headers } = await rig.fetch('http://a.test/')
    const via = headers.via ?? ''
    assert.equal(
      (await rig.fetch('http://a.test/', { headers: ['Via', `1.0 other, ${via}, 1.1 another`] })).status,
      508,
    )
    assert.equal((await rig.fetch('http://a.test/', { headers: ['Via', '1.1 x', 'via', via] })).status, 508)
    assert.equal((await rig.fetch('http://a.test/', { headers: ['Via', `${via}x`] })).status, 200)
    assert.equal(await rig.count('loop'), 2)
  })

  test('two framings of one body get nowhere', async () => {
    await using rig = await openProxy()
    const head = 'POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n'
    for (const framing of [
      'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET http://b.test/ HTTP/1.1\r\n\r\n',
      'Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef',
      'Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n',
    ]) {
      assert.match(await exchange(rig.port, head + framing), /^HTTP\/1\.1 400 /)
    }
    assert.equal(rig.egress.forwarded.length, 0)
  })

  test('a length that Connection names away leaves no second request behind', async () => {
    await using rig = await openProxy()
    const inner = 'GET /smuggled HTTP/1.1\r\nHost: b.test\r\n\r\n'
    const answer = await exchange(
      rig.port,
      `POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close, Content-Length\r\nContent-Length: ${inner.length}\r\n\r\n${inner}`,
    )
    assert.match(answer, /"body":"GET \/smuggled/)
    assert.equal(rig.egress.forwarded.length, 1)
  })
})

describe('proxy authentication', () => {
  const AUTH = ['Proxy-Authorization', `Basic ${Buffer.from('node:secret').toString('base64')}`]

  test('absent or wrong is 407 with a challenge, right goes through and goes no further', async () => {
    await using rig = await openProxy({ username: 'node', password: 'secret' })
    for (const headers of [[], ['Proxy-Authorization', 'Basic bm9kZTo='], ['Authorization', AUTH[1]!]]) {
      for (const url of ['http://a.test/', BLOB]) {
        const answer = await rig.fetch(url, { headers })
        assert.equal(answer.status, 407)
        assert.equal(answer.headers['proxy-authenticate'], 'Basic realm="shoal"')
      }
    }
    assert.deepEqual([rig.egress.forwarded.length, rig.served.length], [0, 0])
    const answer = await rig.fetch('http://a.test/', { headers: AUTH })
    assert.equal(answer.status, 200)
    assert.doesNotMatch(answer.body, /proxy-authorization/i)
    assert.equal((await rig.fetch(BLOB, { headers: AUTH })).status, 200)
    assert.equal(await rig.count('unauthorised'), 6)
  })

  test('another password counts from the next request on', async () => {
    await using rig = await openProxy({ username: 'user', password: 'old' })
    const status = async (password: string) => {
      const login = Buffer.from(`user:${password}`).toString('base64')
      return (await rig.fetch('http://a.test/', { headers: ['Proxy-Authorization', `Basic ${login}`] })).status
    }
    assert.equal(await status('old'), 200)
    rig.proxy.setLogin({ username: 'user', password: 'new' })
    assert.equal(await status('old'), 407)
    assert.equal(await status('new'), 200)
  })

  test('the connection goes on where no body is in the way', async () => {
    await using rig = await openProxy({ username: 'node', password: 'secret' })
    const get = (more: string): string => `GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n${more}\r\n`
    const answers = await exchange(rig.port, get('') + get(`${AUTH.join(': ')}\r\nConnection: close\r\n`))
    assert.deepEqual(
      [...answers.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status),
      ['407', '200'],
    )
    const upload = await rig.fetch('http://a.test/', { method: 'PUT', body: 'x' })
    assert.equal(upload.status, 407)
    assert.equal(upload.headers.connection, 'close')
  })
})

/** A body that is read to its end only by who does not wait for anybody. */
function endless(): { readonly chunks: AsyncIterable<Buffer>; produced(): number } {
  const chunk = Buffer.alloc(MIB)
  let produced = 0
  const generate = async function* (): AsyncGenerator<Buffer> {
    for (; produced < MAX_PRODUCED; produced += MIB) {
      yield chunk
      await nextTurn()
    }
  }
  return { chunks: generate(), produced: () => produced }
}

/** Waits until a value has been the same for a while: nothing moves any longer. */
async function settled(value: () => number): Promise<void> {
  let last = value()
  let since = Date.now()
  await until(() => {
    if (value() !== last) [last, since] = [value(), Date.now()]
    return Date.now() - since > 100
  })
}

describe('a blob that was asked for by the same URL before', () => {
  const url = `http://${REGISTRY}/v2/library/app/blobs/sha256:${'a'.repeat(64)}`

  test('is served at once when it is at hand, and counted as cached', async () => {
    let isAtHand = false
    await using rig = await openProxy({ isAtHand: () => isAtHand })
    assert.equal((await rig.fetch(url)).body, 'cached library/app')
    assert.equal((await rig.fetch(url)).body, 'cached library/app')
    isAtHand = true
    assert.equal((await rig.fetch(url)).body, 'at hand library/app')
    assert.equal(await rig.count('cached'), 3)
  })

  test('is judged anew when the rules have changed, when it comes round again, and without a login', async () => {
    await using rig = await openProxy({ isAtHand: () => true })
    await rig.fetch(url)
    const round = await rig.fetch(url, { headers: ['Via', '1.1 shoal-test'] })
    assert.equal(round.status, 508)
    rig.proxy.setLogin({ username: 'node', password: 'secret' })
    assert.equal((await rig.fetch(url)).status, 407)
    rig.proxy.setLogin({})
    rig.proxy.setRules([{ match: 'library', action: 'deny', useHttps: false }])
    assert.equal((await rig.fetch(url)).status, 403)
  })

  test('is not remembered where only a header insisted on the cache', async () => {
    const rules = [{ match: 'library', action: 'direct', useHttps: false }] as const
    await using rig = await openProxy({ isAtHand: () => true, rules })
    assert.equal((await rig.fetch(url, { headers: ['X-Dragonfly-Use-P2P', 'true'] })).body, 'cached library/app')
    await rig.fetch(url)
    assert.equal(await rig.count('forwarded'), 1)
  })
})

test('with an access log every answer gets its line, without query and without what stands before the path', async () => {
  const lines: object[] = []
  const log: Logger = { ...silentLogger, info: fields => void lines.push(fields), child: () => log }
  await using rig = await openProxy({ accessLog: true, isAtHand: () => true, log })
  const blob = `/v2/library/app/blobs/sha256:${'a'.repeat(64)}`
  await rig.fetch(`http://${REGISTRY}${blob}`)
  await rig.fetch(`http://${REGISTRY}${blob}`)
  await rig.fetch(`http://${REGISTRY}/v2/library/app/manifests/latest?token=secret`)
  await until(() => lines.length === 3)
  assert.deepEqual(
    lines.map(line => ('path' in line ? line.path : undefined)),
    [blob, blob, '/v2/library/app/manifests/latest'],
  )
})
