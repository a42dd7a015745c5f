import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { BLOCK_BYTES, digestHex, systemClock, type Digest } from '../../../src/core/index.ts'
import { createUpstreamMetrics } from '../../../src/upstream/metrics.ts'
import { readTlsMaterial } from '../../../src/upstream/net/tls.ts'
import { Transport } from '../../../src/upstream/net/transport.ts'
import { fixedCredentials } from '../../../src/upstream/objects/bucket-credentials.ts'
import { placeOf } from '../../../src/upstream/objects/bucket-place.ts'
import { BucketServer } from '../../../src/upstream/objects/bucket-server.ts'
import { ObjectSession } from '../../../src/upstream/objects/object-session.ts'
import { s3Signer } from '../../../src/upstream/objects/s3-signer.ts'
import { openS3Origin, type ObjectOrigin } from '../../../src/upstream/objects/index.ts'
import { blobSourceConformance } from '../../conformance/blob-source.ts'
import { bytesOf, digestOf, generatedBlob } from '../../support/generated-blob.ts'
import { skipWithout } from '../../support/tools.ts'
import { Versitygw } from '../../support/versitygw.ts'
import { keyOf, readRange, testDeps } from '../rig.ts'
import { CONNECTION } from './rig.ts'

const skip = await skipWithout(['versitygw'])
const BLOB = bytesOf(generatedBlob(2 * BLOCK_BYTES + 77, 3))
const DIGEST = digestOf(BLOB)

/** One server for all tests of this file, each with a bucket of its own. */
const server = skip === false ? await Versitygw.start() : undefined
let buckets = 0

after(async () => {
  await server?.[Symbol.asyncDispose]()
})

async function openBucket(
  blobs: ReadonlyMap<Digest, Uint8Array>,
  more: object = {},
  prefix = 'blobs/',
): Promise<ObjectOrigin> {
  assert.ok(server !== undefined)
  const { keys, region, url } = server
  const bucket = `bucket-${++buckets}`
  await server.createBucket(bucket)
  for (const [digest, bytes] of blobs) await server.putObject(bucket, `${prefix}${digestHex(digest)}`, bytes)
  return openS3Origin(testDeps(systemClock), {
    ...{ ...CONNECTION, ...keys, type: 's3', endpoint: url, bucket, prefix, region, pathStyle: true, ...more },
  })
}

if (server !== undefined) {
  blobSourceConformance('a bucket of a real S3 server', async blobs => {
    const origin = await openBucket(blobs)
    return { source: origin, key: digest => keyOf(digest), close: () => origin.close() }
  })
}

test('keys with odd characters are signed as a real S3 server wants it', { skip }, async () => {
  for (const prefix of ["a b+c/&=;@,'()*!~/", 'ü/%41/?#/']) {
    await using origin = await openBucket(new Map([[DIGEST, BLOB]]), {}, prefix)
    assert.ok((await readRange(origin, DIGEST, { start: 10, end: BLOB.length })).equals(BLOB.subarray(10)), prefix)
  }
})

test('a real S3 server says which bucket is missing, and that a key is unknown or wrong', { skip }, async () => {
  const cases: [object, string, RegExp][] = [
    [{ bucket: 'not-there' }, 'ERR_UPSTREAM_STATUS', /404 \(NoSuchBucket\): there is no bucket "not-there"/],
    // versitygw has a code of its own for that; S3's is tried elsewhere.
    [{ accessKeyId: 'AKIDOFNOBODY' }, 'ERR_UPSTREAM_STATUS', /answered 404 \(XAdminUserNotFound\)/],
    [{ secretAccessKey: 'wrong' }, 'ERR_UPSTREAM_AUTH', /\(SignatureDoesNotMatch\): the secret key or the region/],
    [{ region: 'us-east-9' }, 'ERR_UPSTREAM_STATUS', /is at eu-test-1; set region/],
  ]
  for (const [more, code, message] of cases) {
    await using origin = await openBucket(new Map([[DIGEST, BLOB]]), more)
    await assert.rejects(origin.stat(keyOf(DIGEST)), { code, message })
    await assert.rejects(origin.begin(keyOf(DIGEST), { start: 0, end: 1 }), { code, message })
  }
})

test('a real S3 server refuses a clock that is wrong with a sentence that says so', { skip }, async () => {
  const clock = { ...systemClock, now: () => Date.now() - 60 * 60_000 }
  assert.ok(server !== undefined)
  await server.createBucket('skewed')
  await server.putObject('skewed', digestHex(DIGEST), BLOB)
  await using origin = await openS3Origin(testDeps(clock), {
    ...{ ...CONNECTION, ...server.keys, type: 's3', endpoint: server.url, bucket: 'skewed', prefix: '' },
    ...{ region: server.region, pathStyle: true },
  })
  await assert.rejects(origin.stat(keyOf(DIGEST)), { code: 'ERR_UPSTREAM_AUTH', message: /the clocks of the two/ })
})

test('a real S3 server is asked for the rest of the object that was begun, and of no other', { skip }, async () => {
  assert.ok(server !== undefined)
  const { keys, region, url } = server
  const place = placeOf('models', { endpoint: url, bucket: 'replaced', prefix: '' }, { pathStyle: true })
  const deps = testDeps(systemClock)
  const metrics = createUpstreamMetrics(deps.metrics)
  const tls = await readTlsMaterial(CONNECTION.tls)
  const transport = new Transport({ clock: systemClock, metrics }, { ...CONNECTION, base: place.base, tls })
  const sign = await s3Signer(deps, { region })
  const bucket = new BucketServer(
    { transport, place, credentials: fixedCredentials(keys), sign },
    { bucket: 'replaced' },
  )
  const unused = (): never => assert.fail('the server heeds Range')
  const session = new ObjectSession(
    { ...deps, metrics, server: bucket, isRangeless: () => false, ignoresRange: unused },
    { hex: digestHex(DIGEST), retries: 0 },
  )
  const read = async (start: number, end: number): Promise<Buffer> => {
    const { body } = await session.send({ method: 'GET', repository: '', path: '', range: { start, end } })
    return Buffer.from(await body.arrayBuffer())
  }
  await server.createBucket('replaced')
  await server.putObject('replaced', digestHex(DIGEST), BLOB)
  assert.ok((await read(0, 100)).equals(BLOB.subarray(0, 100)))
  assert.ok((await read(100, 200)).equals(BLOB.subarray(100, 200)))
  await server.putObject('replaced', digestHex(DIGEST), BLOB.subarray(1))
  await assert.rejects(read(200, 300), { code: 'ERR_UPSTREAM_BODY', message: /has replaced the object/ })
  await bucket.close()
})
