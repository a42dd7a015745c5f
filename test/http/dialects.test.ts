import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import fs from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { describe, test } from 'node:test'
import { Client, request } from 'undici'
import { Registry } from 'prom-client'
import { ShoalError, silentLogger } from '../../src/core/index.ts'
import { Listener, openHealthApp } from '../../src/http/index.ts'
import { digestOf } from '../support/fake-origin.ts'
import { exchange, openMirror, type Answer, type MirrorRigOptions } from '../support/mirror-rig.ts'
import { REGISTRY } from '../support/rig.ts'
import { until } from '../support/until.ts'

const MIB = 1024 * 1024

/** Names that every rig here knows, beside the default. */
const NAMES: MirrorRigOptions = {
  registries: ['ns.test', 'header.test:5000', 'virtual.test', 'models', 'large'],
  hosts: { 'Mirror.test': 'virtual.test' },
  blobs: [
    { prefix: '/models', origin: 'models', repository: 'blobs' },
    { prefix: '/models/large', origin: 'large', repository: 'library/large' },
  ],
}

async function openNamed(options: MirrorRigOptions = {}) {
  const mirror = await openMirror({ ...NAMES, ...options })
  const content = randomBytes(3 * MIB)
  const digest = mirror.rig.origin.add(content)
  return { mirror, content, digest, hex: digest.slice('sha256:'.length) }
}

function messageOf(answer: Pick<Answer, 'body'>): string {
  const { errors } = JSON.parse(answer.body.toString()) as { errors: { code: string; message: string }[] }
  assert.equal(errors.length, 1)
  return errors[0]!.message
}

describe('the registry that a request means', () => {
  const HEADER = { 'X-DRAGONFLY-registry': 'https://header.test:5000/' }
  const HOST = { host: 'MIRROR.test:65001' }

  for (const [what, query, headers, registry] of [
    ['ns before everything else', '?ns=ns.test', { ...HEADER, ...HOST }, 'ns.test'],
    ['ns as a URL', '?ns=https%3A%2F%2Fns.test%3A443', {}, 'ns.test'],
    ['the header before the host', '', { ...HEADER, ...HOST }, 'header.test:5000'],
    ['an empty header means nothing', '', { 'x-dragonfly-registry': '', ...HOST }, 'virtual.test'],
    ['the virtual host', '', HOST, 'virtual.test'],
    ['the default', '', {}, REGISTRY],
    ['the default, for an unknown host', '', { host: 'elsewhere.test' }, REGISTRY],
  ] as const) {
    test(`${what}, for blobs, manifests and listings, cold and warm`, async () => {
      const { mirror, digest, content } = await openNamed()
      await using _hold = mirror
      mirror.rig.origin.tag('v1', Buffer.from('{}'))
      for (let round = 0; round < 3; round += 1) {
        const range = `bytes=${round}-70000`
        const blob = await mirror.fetch(`/v2/library/test/blobs/${digest}${query}`, { headers: { ...headers, range } })
        assert.equal(blob.status, 206)
        assert.ok(blob.body.equals(content.subarray(round, 70_001)))
        assert.equal(blob.headers['oci-namespace'], query === '' ? undefined : registry)
      }
      assert.deepEqual([...new Set(mirror.rig.origin.stats.map(key => key.registry))], [registry])
      const asked: string[] = []
      mirror.rig.sources.origin = name => {
        asked.push(name)
        return mirror.rig.origin
      }
      for (const tail of ['manifests/v1', 'tags/list'])
        assert.equal((await mirror.fetch(`/v2/library/test/${tail}${query}`, { headers })).status, 200)
      assert.deepEqual([...new Set(asked)], [registry])
    })
  }

  test('what is no registry is 403, whoever says it', async () => {
    const { mirror, digest } = await openNamed()
    await using _hold = mirror
    for (const header of ['https://unknown.test', 'https://user:secret@header.test', 'a, b', '127.0.0.1:22']) {
      const answer = await mirror.fetch(`/v2/library/test/blobs/${digest}`, {
        headers: { 'x-dragonfly-registry': header },
      })
      assert.equal(answer.status, 403, header)
      assert.equal(answer.headers['x-dragonfly-error-type'], 'proxy')
      assert.ok(!messageOf(answer).includes('secret'))
    }
  })

  test('a warm answer by one name is no answer by another, although the URL is the same', async () => {
    const { mirror, digest } = await openNamed()
    await using _hold = mirror
    const get = async (headers: Record<string, string>): Promise<number> =>
      (await mirror.fetch(`/v2/library/test/blobs/${digest}`, { headers: { ...headers, range: 'bytes=0-99' } })).status
    for (const headers of [{}, { host: 'mirror.test' }, { 'x-dragonfly-registry': 'header.test:5000' }])
      for (let round = 0; round < 2; round += 1) assert.equal(await get(headers), 206)
    // From now on only what has been proven for a place is served from there.
    mirror.rig.origin.beforeAnswer = () => {
      throw new ShoalError('ERR_UPSTREAM_TRANSPORT', 'gone')
    }
    assert.equal(await get({}), 206)
    assert.equal(await get({ 'x-dragonfly-registry': 'ns.test' }), 503)
    assert.equal(await get({ 'x-dragonfly-registry': 'header.test:5000' }), 206)
    assert.equal(await get({ 'x-dragonfly-registry': 'unknown.test' }), 403)
    assert.equal(await get({ host: 'mirror.test' }), 206)
    assert.equal(await get({ host: 'elsewhere.test' }), 206)
  })

  test('without virtual hosts the Host header means nothing, and the header still does', async () => {
    const { mirror, digest } = await openNamed({ hosts: {} })
    await using _hold = mirror
    for (const headers of [{ host: 'a.test' }, { host: 'b.test' }, { 'x-dragonfly-registry': 'ns.test' }, {}])
      assert.equal((await mirror.fetch(`/v2/library/test/blobs/${digest}`, { headers })).status, 200)
    assert.deepEqual(
      mirror.rig.origin.stats.map(key => key.registry),
      [REGISTRY, 'ns.test'],
    )
  })
})

describe('prefixes', () => {
  test('GET, HEAD and ranges of a blob by its hex and by its digest', async () => {
    const { mirror, content, digest, hex } = await openNamed()
    await using _hold = mirror
    for (const url of [`/models/${hex}`, `/models/${digest}`, `/models/large/${hex}?x=y`]) {
      const head = await mirror.fetch(url, { method: 'HEAD', headers: { range: 'bytes=0-' } })
      assert.equal(head.status, 200)
      assert.equal(head.headers['content-length'], String(content.length))
      for (let round = 0; round < 3; round += 1) {
        const part = await mirror.fetch(url, { headers: { range: 'bytes=1000-90000' } })
        assert.equal(part.status, 206)
        assert.ok(part.body.equals(content.subarray(1000, 90_001)))
        assert.equal(part.headers['docker-content-digest'], digest)
      }
      assert.ok((await mirror.fetch(url)).body.equals(content))
    }
    assert.deepEqual(
      mirror.rig.origin.stats.map(({ registry, repository }) => [registry, repository]),
      [
        ['models', 'blobs'],
        ['large', 'library/large'],
      ],
    )
  })

  test('a sha512 blob goes by its 128 digits', async () => {
    const { mirror, content } = await openNamed()
    await using _hold = mirror
    const digest = mirror.rig.origin.add(content, digestOf(content, 'sha512'))
    assert.ok((await mirror.fetch(`/models/${digest.slice('sha512:'.length)}`)).body.equals(content))
  })

  test('the prefix says where, whatever the headers and ns say', async () => {
    const { mirror, hex } = await openNamed()
    await using _hold = mirror
    const headers = { 'x-dragonfly-registry': 'unknown.test', host: 'mirror.test' }
    const answer = await mirror.fetch(`/models/${hex}?ns=unknown.test`, { headers })
    assert.equal(answer.status, 200)
    assert.equal(answer.headers['oci-namespace'], undefined)
    assert.equal(mirror.rig.origin.stats[0]?.registry, 'models')
  })

  test('what is no blob below a prefix is 404 with a sentence, encoded or not', async () => {
    const { mirror, hex } = await openNamed()
    await using _hold = mirror
    for (const url of ['/models/', '/models', `/models/..%2f${hex}`, `/models/%2e%2e/${hex}`, `/models/${hex}%2f`]) {
      const answer = await exchange(
        { port: mirror.port, host: '127.0.0.1' },
        `GET ${url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`,
      )
      assert.match(answer, /^HTTP\/1\.1 404 /, url)
      assert.match(answer, /"errors":\[\{"code":"UNSUPPORTED","message":"this is neither a path of the pull API/, url)
    }
    assert.deepEqual(mirror.rig.origin.stats, [])
  })

  test('a push below a prefix is refused', async () => {
    const { mirror, hex } = await openNamed()
    await using _hold = mirror
    assert.equal((await mirror.fetch(`/models/${hex}`, { method: 'PUT', body: 'x' })).status, 405)
  })
})

describe('the socket of one blob', () => {
  async function openSocket() {
    const { mirror, content, digest } = await openNamed()
    const directory = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-socket-'))
    const socket = path.join(directory, 'blob.sock')
    const handler = mirror.mirror.handlerFor({ socket, origin: 'models', repository: 'blobs', digest })
    const listener = await Listener.open(handler, { address: { kind: 'unix', path: socket } })
    return {
      mirror,
      content,
      digest,
      socket,
      async [Symbol.asyncDispose]() {
        await listener.close()
        await mirror[Symbol.asyncDispose]()
        await fs.rm(directory, { recursive: true, force: true })
      },
    }
  }

  test('any path and any Host is that blob: HEAD with a Range tells its size, GET with a Range sends it', async () => {
    await using one = await openSocket()
    const client = new Client('http://localhost', { socketPath: one.socket })
    const headers = { host: Buffer.from(one.socket).toString('hex') }
    try {
      for (const url of ['/', '/v2/other/blobs/sha256:x?ns=unknown.test', '/models', '/healthy']) {
        const head = await client.request({ path: url, method: 'HEAD', headers: { ...headers, range: 'bytes=0-' } })
        await head.body.dump()
        assert.equal(head.statusCode, 200)
        assert.equal(head.headers['content-length'], String(one.content.length))
        for (let round = 0; round < 2; round += 1) {
          const part = await client.request({
            path: url,
            method: 'GET',
            headers: { ...headers, range: 'bytes=7-99999' },
          })
          assert.equal(part.statusCode, 206)
          assert.ok(Buffer.from(await part.body.arrayBuffer()).equals(one.content.subarray(7, 100_000)))
        }
      }
      const push = await client.request({ path: '/', method: 'POST', headers, body: 'x' })
      await push.body.dump()
      assert.equal(push.statusCode, 405)
    } finally {
      await client.close()
    }
  })

  test('an absolute-form is that blob as well, and a tunnel is refused', async () => {
    await using one = await openSocket()
    const get = await exchange(
      { path: one.socket },
      'GET http://elsewhere.test/ HTTP/1.1\r\nHost: elsewhere.test\r\nRange: bytes=0-9\r\nConnection: close\r\n\r\n',
    )
    assert.match(get, /^HTTP\/1\.1 206 /)
    const connect = await exchange({ path: one.socket }, 'CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n')
    assert.match(connect, /^HTTP\/1\.1 405 /)
  })

  test('an endpoint that can mean no blob is refused before anything listens', async () => {
    const { mirror } = await openNamed()
    await using _hold = mirror
    const good = { socket: '/x', origin: 'models', repository: 'blobs', digest: `sha256:${'a'.repeat(64)}` }
    assert.throws(() => mirror.mirror.handlerFor({ ...good, digest: 'x' }), { code: 'ERR_DIGEST_INVALID' })
    assert.throws(() => mirror.mirror.handlerFor({ ...good, repository: '../x' }), { code: 'ERR_NAME_INVALID' })
    assert.throws(() => mirror.mirror.handlerFor({ ...good, origin: 'a b' }), { code: 'ERR_ORIGIN_UNKNOWN' })
  })
})

describe('absolute-form and CONNECT', () => {
  test('without a forward proxy an absolute-form is 404 with a sentence, a push 405, CONNECT 405 and the end', async () => {
    const { mirror, digest } = await openNamed()
    await using _hold = mirror
    const where = { port: mirror.port, host: '127.0.0.1' }
    const ask = (head: string): Promise<string> =>
      exchange(where, `${head} HTTP/1.1\r\nHost: registry.test\r\nConnection: close\r\n\r\n`)
    const get = await ask(`GET http://registry.test/v2/library/test/blobs/${digest}`)
    assert.match(get, /^HTTP\/1\.1 404 /)
    assert.match(get, /this is no forward proxy/)
    assert.match(await ask('POST https://registry.test/x'), /^HTTP\/1\.1 405 /)
    // The server ends the connection, although nobody asked for that.
    const connect = await exchange(where, 'CONNECT registry.test:443 HTTP/1.1\r\nHost: registry.test:443\r\n\r\n')
    assert.match(connect, /^HTTP\/1\.1 405 /)
    assert.match(connect, /this is no forward proxy/)
    assert.deepEqual(mirror.rig.origin.stats, [])
  })

  test('a client that resets its refused tunnel harms nobody', async () => {
    const { mirror } = await openNamed()
    await using _hold = mirror
    const socket = net.connect(mirror.port, '127.0.0.1')
    await once(socket, 'connect')
    socket.write('CONNECT registry.test:443 HTTP/1.1\r\nHost: registry.test:443\r\n\r\n')
    socket.resetAndDestroy()
    await until(() => mirror.listener.connections === 0)
    assert.equal((await mirror.fetch('/v2/')).status, 200)
  })

  test('with a forward proxy everything absolute is its business, except what means this listener', async () => {
    const seen: string[] = []
    const proxy = {
      handle: (request: IncomingMessage, response: ServerResponse): void => {
        seen.push(request.url ?? '')
        response.end('proxied')
      },
    }
    const { mirror, content, digest } = await openNamed({ proxy })
    await using _hold = mirror
    const ask = (url: string, host = 'other.test'): Promise<string> =>
      exchange(
        { port: mirror.port, host: '127.0.0.1' },
        `GET ${url} HTTP/1.1\r\nHost: ${host}\r\nRange: bytes=0-9\r\nConnection: close\r\n\r\n`,
      )
    const elsewhere = `http://registry.test/v2/library/test/blobs/${digest}`
    assert.match(await ask(elsewhere), /proxied$/)
    const part = content.subarray(0, 10).toString('latin1')
    for (let round = 0; round < 2; round += 1) {
      for (const own of [`http://127.0.0.1:${mirror.port}`, `HTTP://LOCALHOST:${mirror.port}`, 'http://mirror.test']) {
        const answer = await ask(`${own}/v2/library/test/blobs/${digest}`)
        assert.match(answer, /^HTTP\/1\.1 206 /, own)
        assert.ok(answer.endsWith(part))
      }
    }
    // The authority stands for the Host header.
    assert.deepEqual([...new Set(mirror.rig.origin.stats.map(key => key.registry))], [REGISTRY, 'virtual.test'])
    assert.match(await ask(`http://127.0.0.1:${mirror.port + 1}/v2/`), /proxied$/)
    assert.equal(seen.length, 2)
  })

  test('CONNECT goes to whoever takes it', async () => {
    const listener = await Listener.open((_request, response) => void response.end(), {
      address: { kind: 'tcp', host: '127.0.0.1', port: 0 },
      onConnect: (request, socket, head) => void socket.end(`HTTP/1.1 200 OK\r\n\r\n${request.url} ${head.toString()}`),
    })
    try {
      const port = Number(listener.address.split(':')[1])
      const answer = await exchange({ port, host: '127.0.0.1' }, 'CONNECT a.test:443 HTTP/1.1\r\nHost: a\r\n\r\nhello')
      assert.equal(answer, 'HTTP/1.1 200 OK\r\n\r\na.test:443 hello')
    } finally {
      await listener.close()
    }
  })

  test('a password in an absolute-form reaches no log line', async () => {
    const lines: object[] = []
    const say = (fields: object): void => void lines.push(fields)
    const log = { debug: say, info: say, warn: say, error: say, child: () => log }
    const { mirror } = await openNamed({ log, accessLog: true })
    await using _hold = mirror
    await exchange(
      { port: mirror.port, host: '127.0.0.1' },
      'GET http://user:secret@a.test/some/path?token=secret HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n',
    )
    await until(() => lines.some(line => 'path' in line))
    assert.ok(!JSON.stringify(lines).includes('secret'))
    assert.ok(lines.some(line => 'path' in line && line.path === '/some/path'))
  })
})

describe('odd but honest requests', () => {
  test('a GET with Content-Length: 0, as nydusd sends it, and requests in a pipe of every dialect', async () => {
    const { mirror, content, digest, hex } = await openNamed()
    await using _hold = mirror
    const v2 = `/v2/library/test/blobs/${digest}`
    const requests = [
      `GET ${v2} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nrange: bytes=0-0\r\n\r\n`,
      `GET /models/${hex} HTTP/1.1\r\nHOST: x\r\nRANGE: bytes=1-1\r\n\r\n`,
      `GET ${v2}?ns=ns.test HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nRange: bytes=2-2\r\n\r\n`,
      `GET ${v2} HTTP/1.1\r\nHost: x\r\nx-dragonfly-REGISTRY: header.test:5000\r\nRange: bytes=3-3\r\n\r\n`,
      `GET http://127.0.0.1:${mirror.port}${v2} HTTP/1.1\r\nHost: x\r\nRange: bytes=4-4\r\n\r\n`,
      'GET /server/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
    ]
    for (let round = 0; round < 2; round += 1) {
      const answer = await exchange({ port: mirror.port, host: '127.0.0.1' }, requests.join(''))
      const bodies = answer.split(/HTTP\/1\.1 20[06] [^]*?\r\n\r\n/).slice(1)
      assert.deepEqual(bodies, [...[0, 1, 2, 3, 4].map(index => content.toString('latin1', index, index + 1)), 'pong'])
    }
  })

  test('every ping is answered on the mirror and on the health listener, GET and HEAD', async () => {
    await using mirror = await openMirror()
    const health = { ready: () => ({ ok: true, components: {} }) }
    const app = await openHealthApp({ health, metrics: new Registry(), log: silentLogger })
    const listener = await Listener.open(app.handler, { address: { kind: 'tcp', host: '127.0.0.1', port: 0 } })
    try {
      for (const base of [mirror.url, `http://${listener.address}`]) {
        for (const [url, body] of [
          ['/server/ping', 'pong'],
          ['/healthy', 'ok'],
          ['/v2', '{}'],
          ['/v2/', '{}'],
        ] as const) {
          const answer = await request(`${base}${url}`)
          assert.equal(answer.statusCode, 200, base + url)
          assert.equal(await answer.body.text(), body)
          const isApi = url.startsWith('/v2')
          assert.equal(answer.headers['docker-distribution-api-version'], isApi ? 'registry/2.0' : undefined)
          assert.match(String(answer.headers['content-type']), isApi ? /^application\/json/ : /^text\/plain/)
          const head = await request(`${base}${url}`, { method: 'HEAD' })
          assert.equal(head.statusCode, 200)
          assert.equal(head.headers['content-length'], String(body.length))
          await head.body.dump()
        }
      }
    } finally {
      await listener.close()
      await app.close()
    }
  })
})
