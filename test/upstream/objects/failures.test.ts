import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { BLOCK_BYTES, digestHex } from '../../../src/core/index.ts'
import { bytesOf, digestOf, generatedBlob } from '../../support/generated-blob.ts'
import { collect, keyOf, metric, readRange } from '../rig.ts'
import { HTTP, openObjects, OSS, rangesSeen, S3 } from './rig.ts'

const SIZE = 2 * BLOCK_BYTES + 4_321
const BLOB = bytesOf(generatedBlob(SIZE, 11))
const DIGEST = digestOf(BLOB)
const KEY = keyOf(DIGEST)
const ALL = { start: 0, end: SIZE }
const blobs = new Map([[DIGEST, BLOB]])

for (const dialect of [S3, OSS, HTTP]) {
  describe(`${dialect.kind}: when the server fails`, () => {
    test('a 500, a 503 and a reset before the headers are tried again', async () => {
      await using rig = await openObjects(dialect, {
        blobs,
        fault: ({ nth }) => [{ status: 500 }, { status: 503 }, { reset: 'before-headers' as const }][nth],
      })
      assert.ok((await readRange(rig.origin, DIGEST, ALL)).equals(BLOB))
      assert.equal(rig.server.requests.length, 4)
      assert.equal(rig.clock.sleeps.length, 3)
    })

    test('a server that goes on failing is an error with its status, for stat as for open', async () => {
      await using rig = await openObjects(dialect, { blobs, fault: () => ({ status: 500 }) }, { retries: 1 })
      const failure = { code: 'ERR_UPSTREAM_STATUS', message: /answered 500$/ }
      await assert.rejects(rig.origin.stat(KEY), failure)
      await assert.rejects(rig.origin.open(KEY, ALL), failure)
      await assert.rejects(rig.origin.begin(KEY, ALL), failure)
      assert.equal(rig.server.requests.length, 6)
    })

    test('a 429 is tried again when the server said', async () => {
      await using rig = await openObjects(dialect, {
        blobs,
        fault: ({ nth }) => (nth === 0 ? { status: 429, headers: { 'retry-after': '2' } } : undefined),
      })
      assert.equal((await rig.origin.stat(KEY))?.size, SIZE)
      assert.ok((rig.clock.sleeps[0] ?? 0) >= 2_000)
    })

    const cut = 100_000
    for (const [what, fault] of [
      ['is reset', { reset: cut }],
      ['ends early', { truncateAfter: cut }],
      ['stalls', { stallAfter: cut }],
    ] as const) {
      test(`a body that ${what} half-way goes on at the next byte, of the same object`, async () => {
        await using rig = await openObjects(
          dialect,
          { blobs, fault: ({ nth }) => (nth === 0 ? fault : undefined) },
          { idleTimeoutMs: 200 },
        )
        assert.ok((await readRange(rig.origin, DIGEST, ALL)).equals(BLOB))
        const [first, second] = rig.server.requests
        assert.equal(first?.headers['if-match'], undefined)
        assert.match(second?.headers['if-match'] ?? '', /^"[0-9a-f]{32}"$/)
        assert.match(rangesSeen(rig.server)[1] ?? '', new RegExp(`^bytes=[1-9]\\d*-${SIZE - 1}$`))
        assert.equal(rig.server.requests.length, 2)
      })
    }

    test('an object that was replaced half-way is an error, and nothing of it is handed out', async () => {
      await using rig = await openObjects(dialect, {
        blobs,
        fault: ({ nth }) => (nth === 0 ? { truncateAfter: cut } : undefined),
        etag: ({ nth }) => `"version-${nth}"`,
      })
      await assertReplaced(rig.origin.open(KEY, ALL), cut)
    })

    test('so is one whose server does not know If-Match', async () => {
      await using rig = await openObjects(dialect, {
        blobs,
        ifMatch: false,
        fault: ({ nth }) => (nth === 0 ? { truncateAfter: cut } : undefined),
        etag: ({ nth }) => `"version-${nth}"`,
      })
      await assertReplaced(rig.origin.open(KEY, ALL), cut)
    })

    test('a weak ETag says nothing of the bytes: a body goes on without it', async () => {
      await using rig = await openObjects(dialect, {
        blobs,
        ifMatch: false,
        fault: ({ nth }) => (nth === 0 ? { truncateAfter: cut } : undefined),
        etag: ({ nth }) => `W/"version-${nth}"`,
      })
      assert.ok((await readRange(rig.origin, DIGEST, ALL)).equals(BLOB))
      assert.equal(rig.server.requests[1]?.headers['if-match'], undefined)
    })

    test('a 412 that nobody provoked is an error like any other status', async () => {
      await using rig = await openObjects(dialect, { blobs, fault: () => ({ status: 412 }) })
      await assert.rejects(rig.origin.open(KEY, ALL), { code: 'ERR_UPSTREAM_STATUS', message: /answered 412$/ })
    })

    test('another size than before is an error once, and then believed', async () => {
      await using rig = await openObjects(dialect, { blobs })
      assert.equal((await rig.origin.stat(KEY))?.size, SIZE)
      rig.server.add(BLOB.subarray(0, 1000), digestHex(DIGEST))
      await assert.rejects(rig.origin.open(KEY, { start: 0, end: 10 }), {
        code: 'ERR_UPSTREAM_BODY',
        message: /says the blob has 1000 bytes, and \d+ before/,
      })
      assert.ok((await readRange(rig.origin, DIGEST, { start: 0, end: 10 })).equals(BLOB.subarray(0, 10)))
    })

    test('a content encoding, more bytes than asked for, and another range are refused', async () => {
      const range = { start: 0, end: 1000 }
      for (const [fault, message] of [
        [{ encoding: 'gzip' }, /encodes the content/],
        [{ excess: 1 }, /sent more than the 1000 bytes/],
        [{ headers: { 'content-range': `bytes 1-1000/${SIZE}` } }, /sent another range than 0-999/],
      ] as const) {
        await using rig = await openObjects(dialect, { blobs, fault: () => fault })
        const reading = async (): Promise<Buffer> => collect(await rig.origin.open(KEY, range))
        await assert.rejects(reading(), { code: 'ERR_UPSTREAM_BODY', message })
      }
    })

    test('a server that ignores Range is read from the beginning, and asked for none for a while', async () => {
      await using rig = await openObjects(dialect, { blobs, fault: () => ({ ignoreRange: true }) })
      const range = { start: 1000, end: 2000 }
      assert.equal(rig.origin.readsWhole(), false)
      assert.ok((await readRange(rig.origin, DIGEST, range)).equals(BLOB.subarray(1000, 2000)))
      assert.equal(rig.origin.readsWhole(), true)
      assert.ok((await readRange(rig.origin, DIGEST, range)).equals(BLOB.subarray(1000, 2000)))
      assert.deepEqual(rangesSeen(rig.server), ['bytes=1000-1999', '', ''])
      assert.equal(rig.log.lines.length, 1)
      assert.equal(await metric(rig.deps.metrics, 'shoal_upstream_ranges_ignored_total'), 1)
      rig.clock.time += 11 * 60_000
      assert.equal(rig.origin.readsWhole(), false)
    })

    test('begin takes one request, and stat of an absent object as few as it can', async () => {
      await using rig = await openObjects(dialect, { blobs })
      const begun = await rig.origin.begin(KEY, { start: 0, end: Infinity })
      assert.ok((await collect(begun?.body)).equals(BLOB))
      assert.equal(rig.server.requests.length, 1)
      const absent = keyOf(`sha256:${'ab'.repeat(32)}`)
      assert.equal(await rig.origin.stat(absent), undefined)
      const methods = rig.server.requests.slice(1).map(({ method }) => method)
      assert.deepEqual(methods, dialect.kind === 'http' ? ['HEAD'] : ['HEAD', 'GET'])
      assert.equal(await rig.origin.begin(absent, ALL), undefined)
    })

    test("a caller's credential goes nowhere", async () => {
      await using rig = await openObjects(dialect, { blobs })
      const authorization = 'Bearer a-token-of-the-caller'
      await rig.origin.stat(KEY, { authorization })
      await readRange(rig.origin, DIGEST, ALL, { authorization })
      await (await rig.origin.begin(KEY, ALL, { authorization }))?.body[Symbol.asyncIterator]().return?.()
      for (const { headers } of rig.server.requests) assert.notEqual(headers.authorization, authorization)
    })

    test('after close every method that would ask refuses', async () => {
      const rig = await openObjects(dialect, { blobs })
      await rig[Symbol.asyncDispose]()
      await rig.origin.close()
      await assert.rejects(rig.origin.stat(KEY), { code: 'ERR_CLOSED' })
      await assert.rejects(rig.origin.open(KEY, ALL), { code: 'ERR_CLOSED' })
      await assert.rejects(rig.origin.begin(KEY, ALL), { code: 'ERR_CLOSED' })
    })

    test('its requests are counted under its kind', async () => {
      await using rig = await openObjects(dialect, { blobs })
      await readRange(rig.origin, DIGEST, ALL)
      const labels = { origin_kind: dialect.kind, outcome: 'success' }
      assert.equal(await metric(rig.deps.metrics, 'shoal_upstream_requests_total', labels), 1)
      assert.equal(await metric(rig.deps.metrics, 'shoal_upstream_bytes_total'), SIZE)
    })
  })
}

/** What arrived before the replacement is right, and the end is an error. */
async function assertReplaced(opening: Promise<AsyncIterable<Uint8Array> | undefined>, cut: number): Promise<void> {
  const body = await opening
  assert.ok(body !== undefined)
  const pieces: Uint8Array[] = []
  const reading = async (): Promise<void> => {
    for await (const piece of body) pieces.push(piece)
  }
  await assert.rejects(reading(), { code: 'ERR_UPSTREAM_BODY', message: /has replaced the object/ })
  assert.ok(Buffer.concat(pieces).equals(BLOB.subarray(0, cut)))
}
