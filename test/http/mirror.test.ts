import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { describe, test } from 'node:test'
import { ShoalError, type Digest } from '../../src/core/index.ts'
import { digestOf } from '../support/fake-origin.ts'
import { openMirror, type Answer } from '../support/mirror-rig.ts'
import { until } from '../support/until.ts'

const MIB = 1024 * 1024

function blobPath(digest: Digest, query = ''): string {
  return `/v2/library/test/blobs/${digest}${query}`
}

function errorCodeOf(answer: Answer): string {
  const { errors } = JSON.parse(answer.body.toString()) as { errors: { code: string; message: string }[] }
  assert.equal(errors.length, 1)
  assert.ok(errors[0]!.message.length > 0)
  return errors[0]!.code
}

describe('blobs', () => {
  for (const temperature of ['cold', 'warm'] as const) {
    test(`${temperature}: every range form is answered exactly`, async () => {
      await using mirror = await openMirror()
      const content = randomBytes(3 * MIB + 77)
      const digest = mirror.rig.origin.add(content)
      if (temperature === 'warm') await mirror.rig.read(digest, 0, content.length)
      const size = content.length
      for (const [range, start, end] of [
        ['bytes=0-0', 0, 1],
        [`bytes=${size - 1}-`, size - 1, size],
        ['bytes=-1000', size - 1000, size],
        ['bytes=262143-262144', 262_143, 262_145],
        ['bytes=1000-2000000', 1000, 2_000_001],
        [`bytes=5-${10 * size}`, 5, size],
        [`bytes=-${10 * size}`, 0, size],
      ] as const) {
        const answer = await mirror.fetch(blobPath(digest), { headers: { range } })
        assert.equal(answer.status, 206, range)
        assert.equal(answer.headers['content-range'], `bytes ${start}-${end - 1}/${size}`)
        assert.equal(answer.headers['content-length'], String(end - start))
        assert.ok(answer.body.equals(content.subarray(start, end)), range)
      }
      const whole = await mirror.fetch(blobPath(digest))
      assert.equal(whole.status, 200)
      assert.ok(whole.body.equals(content))
    })
  }

  test('an answer says what it is, and where its bytes came from', async () => {
    await using mirror = await openMirror()
    const content = randomBytes(MIB)
    const digest = mirror.rig.origin.add(content)
    const cold = await mirror.fetch(blobPath(digest, '?ns=registry.test'))
    assert.equal(cold.headers['x-cache'], 'miss')
    assert.match(String(cold.headers['server-timing']), /^store;dur=\d+\.\d, origin;dur=\d+\.\d$/)
    assert.equal(cold.headers['docker-content-digest'], digest)
    assert.equal(cold.headers['etag'], `"${digest}"`)
    assert.equal(cold.headers['accept-ranges'], 'bytes')
    assert.equal(cold.headers['oci-namespace'], 'registry.test')
    const warm = await mirror.fetch(blobPath(digest))
    assert.equal(warm.headers['x-cache'], 'hit')
    assert.match(String(warm.headers['server-timing']), /^store;dur=\d+\.\d/)
    assert.equal(warm.headers['oci-namespace'], undefined)
  })

  test('a range of which a part is here is a partial hit', async () => {
    await using mirror = await openMirror()
    const content = randomBytes(2 * MIB)
    const digest = mirror.rig.origin.add(content)
    await mirror.rig.read(digest, 0, 1000)
    const answer = await mirror.fetch(blobPath(digest), { headers: { range: 'bytes=0-1048575' } })
    assert.equal(answer.headers['x-cache'], 'partial')
    assert.ok(answer.body.equals(content.subarray(0, MIB)))
  })

  test('HEAD carries the length and no body, also with a Range', async () => {
    await using mirror = await openMirror()
    const digest = mirror.rig.origin.add(randomBytes(1234))
    for (const headers of [{}, { range: 'bytes=0-0' }]) {
      const answer = await mirror.fetch(blobPath(digest), { method: 'HEAD', headers })
      assert.equal(answer.status, 200)
      assert.equal(answer.headers['content-length'], '1234')
      assert.equal(answer.body.length, 0)
    }
    assert.deepEqual(mirror.rig.origin.opened, [])
  })

  test('several ranges are one multipart answer', async () => {
    await using mirror = await openMirror()
    const content = randomBytes(MIB)
    const digest = mirror.rig.origin.add(content)
    const answer = await mirror.fetch(blobPath(digest), { headers: { range: 'bytes=10-19,500000-599999,-7' } })
    assert.equal(answer.status, 206)
    const boundary = /^multipart\/byteranges; boundary=(.+)$/.exec(String(answer.headers['content-type']))?.[1]
    assert.ok(boundary !== undefined)
    assert.equal(answer.headers['content-length'], String(answer.body.length))
    const parts = answer.body.toString('latin1').split(`--${boundary}`).slice(1, -1)
    const bodies = parts.map(part => Buffer.from(part.slice(part.indexOf('\r\n\r\n') + 4, -2), 'latin1'))
    assert.deepEqual(
      bodies.map(body => body.length),
      [10, 100_000, 7],
    )
    assert.ok(
      Buffer.concat(bodies).equals(
        Buffer.concat([content.subarray(10, 20), content.subarray(500_000, 600_000), content.subarray(-7)]),
      ),
    )
    assert.match(parts[1]!, new RegExp(`Content-Range: bytes 500000-599999/${MIB}`))
  })

  test('an empty blob is an empty 200, and every range of it is 416', async () => {
    await using mirror = await openMirror()
    const digest = mirror.rig.origin.add(Buffer.alloc(0))
    const answer = await mirror.fetch(blobPath(digest))
    assert.equal(answer.status, 200)
    assert.equal(answer.headers['content-length'], '0')
    assert.equal((await mirror.fetch(blobPath(digest), { headers: { range: 'bytes=0-0' } })).status, 416)
  })

  test('sha512 blobs are blobs', async () => {
    await using mirror = await openMirror()
    const content = randomBytes(400_000)
    const digest = mirror.rig.origin.add(content, digestOf(content, 'sha512'))
    assert.ok((await mirror.fetch(blobPath(digest))).body.equals(content))
    await until(() => mirror.rig.store.find(digest)?.state === 'complete')
  })

  test('If-None-Match is 304 without a body', async () => {
    await using mirror = await openMirror()
    const digest = mirror.rig.origin.add(randomBytes(1000))
    const answer = await mirror.fetch(blobPath(digest), { headers: { 'if-none-match': `"${digest}"` } })
    assert.equal(answer.status, 304)
    assert.equal(answer.body.length, 0)
  })

  test('an unsatisfiable range is 416 with the size, before any byte is fetched', async () => {
    await using mirror = await openMirror()
    const digest = mirror.rig.origin.add(randomBytes(1000))
    const answer = await mirror.fetch(blobPath(digest), { headers: { range: 'bytes=1000-' } })
    assert.equal(answer.status, 416)
    assert.equal(answer.headers['content-range'], 'bytes */1000')
    assert.equal(errorCodeOf(answer), 'RANGE_INVALID')
    assert.deepEqual(mirror.rig.origin.opened, [])
  })
})

describe('what cannot be served', () => {
  test('malformed digests, names and paths are refused in the registry format', async () => {
    await using mirror = await openMirror()
    for (const [path, status, code] of [
      ['/v2/library/test/blobs/sha256:short', 400, 'DIGEST_INVALID'],
      [`/v2/library/test/blobs/sha256:${'A'.repeat(64)}`, 400, 'DIGEST_INVALID'],
      [`/v2/library/test/blobs/md5:${'a'.repeat(32)}`, 400, 'DIGEST_INVALID'],
      [`/v2/Library/blobs/sha256:${'a'.repeat(64)}`, 400, 'NAME_INVALID'],
      [`/v2/a%2F..%2Fb/blobs/sha256:${'a'.repeat(64)}`, 400, 'NAME_INVALID'],
      [`/v2/%zz/blobs/sha256:${'a'.repeat(64)}`, 400, 'NAME_INVALID'],
      ['/v2/library/test/manifests/.INVALID', 404, 'MANIFEST_UNKNOWN'],
      ['/v2/library/test/manifests/none', 404, 'MANIFEST_UNKNOWN'],
      [`/v2/library/test/blobs/sha256:${'a'.repeat(64)}`, 404, 'BLOB_UNKNOWN'],
      ['/v2/_catalog', 404, 'UNSUPPORTED'],
      ['/elsewhere', 404, 'UNSUPPORTED'],
    ] as const) {
      const answer = await mirror.fetch(path)
      assert.equal(answer.status, status, path)
      assert.equal(errorCodeOf(answer), code, path)
    }
  })

  test('an origin that is not in the table is 403, whatever the name looks like', async () => {
    await using mirror = await openMirror()
    for (const ns of ['unknown.example', '127.0.0.1:22', 'http://evil.example', '..%2f', 'x'.repeat(5000)]) {
      const answer = await mirror.fetch(`/v2/a/manifests/v1?ns=${ns}`)
      assert.equal(answer.status, 403, ns)
      assert.equal(answer.headers['x-dragonfly-error-type'], 'proxy')
      assert.equal(errorCodeOf(answer), 'DENIED')
    }
  })

  test('pushes are 405', async () => {
    await using mirror = await openMirror()
    for (const [method, path] of [
      ['POST', '/v2/a/blobs/uploads/'],
      ['PUT', '/v2/a/manifests/v1'],
      ['DELETE', '/v2/a/manifests/v1'],
      ['PATCH', '/v2/a/blobs/uploads/x'],
      ['GET', '/v2/a/blobs/uploads/x'],
    ] as const) {
      const answer = await mirror.fetch(path, { method, ...(method === 'GET' ? {} : { body: 'x' }) })
      assert.equal(answer.status, 405, `${method} ${path}`)
      assert.equal(errorCodeOf(answer), 'UNSUPPORTED')
    }
  })

  test("the origin's refusal reaches the client with its challenge", async () => {
    await using mirror = await openMirror()
    const challenge = 'Bearer realm="https://auth.example/token",service="x",scope="repository:library/test:pull"'
    mirror.rig.origin.beforeAnswer = () => {
      throw new ShoalError('ERR_UPSTREAM_AUTH', 'no', { details: { status: 401, wwwAuthenticate: [challenge] } })
    }
    const answer = await mirror.fetch(`/v2/library/test/blobs/sha256:${'a'.repeat(64)}`)
    assert.equal(answer.status, 401)
    assert.equal(answer.headers['www-authenticate'], challenge)
    assert.equal(errorCodeOf(answer), 'UNAUTHORIZED')
  })

  test('an origin that cannot be asked is 503 with Retry-After', async () => {
    await using mirror = await openMirror()
    mirror.rig.origin.beforeAnswer = () => {
      throw new ShoalError('ERR_UPSTREAM_TRANSPORT', 'gone')
    }
    const answer = await mirror.fetch(`/v2/library/test/blobs/sha256:${'a'.repeat(64)}`)
    assert.equal(answer.status, 503)
    assert.ok(answer.headers['retry-after'] !== undefined)
  })

  test('a body that cannot be completed is cut, never ended cleanly', async () => {
    await using mirror = await openMirror()
    const digest = mirror.rig.origin.add(randomBytes(4 * MIB))
    mirror.rig.origin.beforePiece = ({ offset }) => {
      if (offset >= 2 * MIB) throw new ShoalError('ERR_UPSTREAM_TRANSPORT', 'gone')
    }
    await assert.rejects(mirror.fetch(blobPath(digest)), /other side closed|terminated|socket/i)
  })

  test('a failure before the first byte is a status, not a cut body', async () => {
    await using mirror = await openMirror()
    const digest = mirror.rig.origin.add(randomBytes(MIB))
    mirror.rig.origin.beforePiece = () => {
      throw new ShoalError('ERR_UPSTREAM_TRANSPORT', 'gone')
    }
    const answer = await mirror.fetch(blobPath(digest), { headers: { range: 'bytes=0-9' } })
    assert.equal(answer.status, 503)
    const several = await mirror.fetch(blobPath(digest), { headers: { range: 'bytes=0-9,20-29' } })
    assert.equal(several.status, 503)
  })
})

describe('clients', () => {
  test('a client that leaves gives up its fetch', async () => {
    await using mirror = await openMirror()
    const digest = mirror.rig.origin.add(randomBytes(8 * MIB))
    let waiting: AbortSignal | undefined
    mirror.rig.origin.beforePiece = async ({ offset }, signal) => {
      if (offset < MIB) return
      waiting = signal
      await new Promise<void>(resolve => signal?.addEventListener('abort', () => resolve(), { once: true }))
    }
    const socket = net.connect(Number(new URL(mirror.url).port), '127.0.0.1')
    socket.write(`GET ${blobPath(digest)} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await once(socket, 'data')
    await until(() => waiting !== undefined)
    socket.destroy()
    await until(() => waiting?.aborted === true)
  })

  test('a client that leaves with requests in the pipe, or in the middle of several ranges, holds nothing', async () => {
    await using mirror = await openMirror()
    const warm = mirror.rig.origin.add(randomBytes(8 * MIB))
    await mirror.rig.read(warm, 0, 8 * MIB)
    const cold = mirror.rig.origin.add(randomBytes(8 * MIB))
    await until(() => mirror.rig.store.find(warm)?.state === 'complete')
    for (const digest of [warm, cold]) {
      for (const range of ['bytes=0-', 'bytes=0-4000000,5000000-6000000']) {
        const socket = net.connect(Number(new URL(mirror.url).port), '127.0.0.1')
        for (let index = 0; index < 10; index += 1) {
          socket.write(`GET ${blobPath(digest)} HTTP/1.1\r\nHost: x\r\nRange: ${range}\r\n\r\n`)
        }
        await once(socket, 'readable')
        socket.destroy()
        await once(socket, 'close')
      }
    }
    await until(async () => (await mirror.rig.metric('shoal_fills')) === 0)
    await until(async () => (await mirror.rig.store.collect(0)).bytes > 0 || mirror.rig.store.stats().bytes === 0)
    await until(() => mirror.rig.store.stats().bytes === 0)
  })

  test('a media type or a registry name that cannot stand in a header does not get there', async () => {
    await using mirror = await openMirror()
    const content = randomBytes(1000)
    const digest = mirror.rig.origin.add(content)
    const stat = mirror.rig.origin.stat.bind(mirror.rig.origin)
    mirror.rig.origin.stat = async (...args) => {
      const info = await stat(...args)
      return info === undefined ? undefined : { ...info, mediaType: 'text/pl\u212ain\r\nX-Evil: 1' }
    }
    const answer = await mirror.fetch(blobPath(digest, '?ns=registry.tes%74'))
    assert.equal(answer.status, 200)
    assert.ok(answer.body.equals(content))
    assert.equal(answer.headers['content-type'], 'application/octet-stream')
    assert.equal(answer.headers['x-evil'], undefined)
    assert.equal((await mirror.fetch(blobPath(digest, '?ns=REGISTRY.test'))).headers['oci-namespace'], 'registry.test')
  })

  test('one connection serves many requests, hits and misses and errors alike', async () => {
    await using mirror = await openMirror()
    const content = randomBytes(MIB)
    const digest = mirror.rig.origin.add(content)
    const socket = net.connect(Number(new URL(mirror.url).port), '127.0.0.1')
    let received = Buffer.alloc(0)
    socket.on('data', (piece: Buffer) => (received = Buffer.concat([received, piece])))
    const get = (path: string, range: string): string => `GET ${path} HTTP/1.1\r\nHost: x\r\nRange: ${range}\r\n\r\n`
    for (let index = 0; index < 5; index += 1) socket.write(get(blobPath(digest), `bytes=${index}-${index}`))
    socket.write(get('/nowhere', 'bytes=0-0'))
    socket.write(get(blobPath(digest), 'bytes=9-9'))
    await until(() => received.toString('latin1').split('HTTP/1.1 ').length === 8)
    socket.destroy()
    const statuses = [...received.toString('latin1').matchAll(/HTTP\/1\.1 (\d+)/g)].map(match => match[1])
    assert.deepEqual(statuses, ['206', '206', '206', '206', '206', '404', '206'])
  })

  test('a slow client slows its source', async () => {
    await using mirror = await openMirror()
    const content = randomBytes(96 * MIB)
    const digest = mirror.rig.origin.add(content)
    const socket = net.connect(Number(new URL(mirror.url).port), '127.0.0.1')
    socket.write(`GET ${blobPath(digest)} HTTP/1.1\r\nHost: x\r\n\r\n`)
    await once(socket, 'readable')
    // Nothing is read: what the source has sent settles at the reader's window.
    let before = -1
    await until(() => {
      const sent = mirror.rig.origin.sentBytes.get(digest) ?? 0
      const settled = sent > 0 && sent === before
      before = sent
      return settled
    })
    assert.ok(before <= 32 * MIB, `${before} bytes sent for a client that read none`)
    socket.destroy()
  })
})

describe('manifests and listings', () => {
  const BODY = Buffer.from('{"schemaVersion":2}')

  test('by tag and by digest, HEAD and GET', async () => {
    await using mirror = await openMirror()
    const digest = mirror.rig.origin.tag('v1', BODY)
    for (const reference of ['v1', digest]) {
      const got = await mirror.fetch(`/v2/library/test/manifests/${reference}`)
      assert.equal(got.status, 200)
      assert.ok(got.body.equals(BODY))
      assert.equal(got.headers['docker-content-digest'], digest)
      assert.equal(got.headers['content-type'], 'application/vnd.oci.image.manifest.v1+json')
      const head = await mirror.fetch(`/v2/library/test/manifests/${reference}`, { method: 'HEAD' })
      assert.equal(head.headers['content-length'], String(BODY.length))
      assert.equal(head.body.length, 0)
    }
  })

  test('a stale answer carries a Warning', async () => {
    await using mirror = await openMirror({ manifests: { tagTtlMs: 0, serveStale: true } })
    mirror.rig.origin.tag('v1', BODY)
    await mirror.fetch('/v2/library/test/manifests/v1')
    mirror.rig.origin.beforeAnswer = () => {
      throw new ShoalError('ERR_UPSTREAM_TRANSPORT', 'gone')
    }
    const answer = await mirror.fetch('/v2/library/test/manifests/v1')
    assert.equal(answer.status, 200)
    assert.match(String(answer.headers['warning']), /^110 /)
  })

  test('tags and referrers are passed through, and /v2/ answers', async () => {
    await using mirror = await openMirror()
    mirror.rig.origin.tag('v1', BODY)
    const tags = await mirror.fetch('/v2/library/test/tags/list?n=10')
    assert.equal(tags.status, 200)
    assert.ok(tags.body.toString().includes('v1'))
    assert.equal((await mirror.fetch(`/v2/library/test/referrers/sha256:${'a'.repeat(64)}`)).status, 200)
    assert.equal((await mirror.fetch('/v2/library/test/referrers/nonsense')).status, 400)
    const base = await mirror.fetch('/v2/')
    assert.equal(base.status, 200)
    assert.equal(base.headers['docker-distribution-api-version'], 'registry/2.0')
  })
})

test('the access log is a line per request without its query', async () => {
  const lines: { fields: object; event: string }[] = []
  const say = (fields: object, event: string): void => void lines.push({ fields, event })
  const log = { debug: say, info: say, warn: say, error: say, child: () => log }
  await using mirror = await openMirror({ log, accessLog: true })
  await mirror.fetch('/v2/a/tags/list?ns=registry.test&token=secret')
  await until(() => lines.some(line => line.event === 'access'))
  const access = lines.find(line => line.event === 'access')
  assert.ok(!JSON.stringify(lines).includes('secret'))
  assert.deepEqual((access?.fields as { path: string; status: number }).path, '/v2/a/tags/list')
})
