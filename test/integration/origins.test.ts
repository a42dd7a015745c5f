import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { digestHex } from '../../src/core/index.ts'
import { fetchBlob, type Fetched } from '../support/client.ts'
import { bytesOf, digestOf, generatedBlob } from '../support/generated-blob.ts'
import { nydusPartition, writeDisk } from '../support/gpt-maker.ts'
import { addBlob, makeOciLayout } from '../support/oci-layout-maker.ts'
import { startScriptedOrigin, type SeenRequest } from '../support/scripted-origin.ts'
import { startShoal, type ShoalProcess } from '../support/shoal.ts'
import { skipWithout, temporaryDirectory } from '../support/tools.ts'
import { until } from '../support/until.ts'
import { Versitygw } from '../support/versitygw.ts'
import { verifyOss } from '../upstream/objects/oss-verifier.ts'
import { asFault, type Objection } from '../upstream/objects/rig.ts'
import { verifySigV4 } from '../upstream/objects/sigv4-verifier.ts'

const skipS3 = await skipWithout(['versitygw'])
/** Some blocks and a rest; one that ends with a block; one that is less than a block. */
const BLOBS = [3_000_001, 524_288, 777].map((size, index) => bytesOf(generatedBlob(size, 300 + index)))
const KEYS = { accessKeyId: 'AKIDOFTHENODE', secretAccessKey: 'the-secret/key+of-the-node' }

/** Where the blobs are kept, and how Shoal is told. */
interface Kept extends AsyncDisposable {
  /** Of `[origins.kept]`. */
  readonly options: object
  readonly env?: NodeJS.ProcessEnv
  /** Nothing of it is left. */
  leave(): Promise<void>
}

/** Every blob by name and below a prefix, whole and in ranges, cold and warm, and warm with the origin gone. */
async function readEverything(kept: Kept): Promise<void> {
  await using shoal = await startShoal({
    config: {
      mirror: { listen: ['127.0.0.1:0'], blobs: [{ prefix: '/kept', origin: 'kept' }] },
      origins: { kept: kept.options },
      upstream: { retries: 0 },
    },
    ...(kept.env === undefined ? {} : { env: kept.env }),
  })
  const blobs = BLOBS.map(bytes => ({ digest: digestOf(bytes), bytes }))
  const absent = digestOf(Buffer.from('nowhere'))
  const ways: readonly ((digest: string, range?: string) => Promise<Fetched>)[] = [
    (digest, range) => fetchBlob({ mirror: shoal.mirror, digest, repository: 'any/thing', registry: 'kept' }, range),
    (digest, range) => prefixed(shoal, digest, range),
  ]
  for (const state of ['cold', 'warm', 'gone']) {
    if (state === 'gone') await kept.leave()
    for (const [nth, { bytes, digest }] of blobs.entries()) {
      for (const [index, way] of ways.entries()) {
        const what = `${state}, ${digest}, way ${index}`
        // What is cold is asked for in a range first by every other blob.
        for (const isRange of nth % 2 === 0 ? [true, false] : [false, true]) {
          const [start, end] = isRange ? [bytes.length >> 2, (bytes.length >> 1) + 1] : [0, bytes.length]
          const answer = await way(digest, isRange ? `${start}-${end - 1}` : undefined)
          assert.equal(answer.status, isRange ? 206 : 200, `${what}: ${answer.body.toString('utf8', 0, 200)}`)
          assert.ok(answer.body.equals(bytes.subarray(start, end)), what)
          assert.equal(answer.headers['docker-content-digest'], digest)
          if (state === 'gone') assert.equal(answer.headers['x-cache'], 'hit', what)
        }
      }
      if (state === 'cold') await stored(shoal, digest)
    }
    for (const way of ways) {
      const { status } = await way(absent)
      if (state !== 'gone') assert.equal(status, 404, `${state}: what is not there`)
      else assert.ok(status === 404 || status === 503, `what is not there, of an origin that is gone: ${status}`)
    }
  }
  const secrets = shoal.lines.filter(line => line.includes(KEYS.secretAccessKey))
  assert.deepEqual(secrets, [])
}

async function prefixed(shoal: ShoalProcess, digest: string, range: string | undefined): Promise<Fetched> {
  const answer = await fetch(`${shoal.mirror}/kept/${digest.slice('sha256:'.length)}`, {
    headers: range === undefined ? {} : { range: `bytes=${range}` },
  })
  return {
    status: answer.status,
    headers: Object.fromEntries(answer.headers),
    body: Buffer.from(await answer.arrayBuffer()),
  }
}

async function stored(shoal: ShoalProcess, digest: string): Promise<void> {
  const url = `${shoal.mirror}/v2/any/thing/blobs/${digest}?ns=kept`
  await until(async () => (await fetch(url, { method: 'HEAD' })).headers.get('x-cache') === 'hit')
}

/** A directory that `fill` makes into an origin. */
async function keptIn(fill: (directory: string) => Promise<object>): Promise<Kept> {
  const directory = await temporaryDirectory('shoal-kept')
  return {
    options: await fill(directory.path),
    leave: () => fs.rm(directory.path, { recursive: true }),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  }
}

/** A server of objects below /v2/library/test/blobs/, where every request is held against `verify`. */
async function keptAt(
  options: (url: string) => object,
  verify: (seen: SeenRequest) => Objection | undefined,
): Promise<Kept> {
  const server = await startScriptedOrigin()
  for (const bytes of BLOBS) server.add(bytes, digestHex(digestOf(bytes)))
  server.fault = seen => {
    const objection =
      verify(seen) ?? (server.blobs.has(seen.reference ?? '') ? undefined : { status: 404, code: 'NoSuchKey' })
    return objection === undefined ? { headers: { etag: `"${seen.reference ?? ''}"` } } : asFault(objection)
  }
  return {
    options: options(server.url),
    env: { ORIGIN_SECRET: KEYS.secretAccessKey },
    leave: () => server.close(),
    [Symbol.asyncDispose]: () => server.close(),
  }
}

test('an OCI layout', async () => {
  await using kept = await keptIn(async directory => {
    await makeOciLayout(directory, { layers: [10] })
    for (const bytes of BLOBS) await addBlob(directory, 'application/octet-stream', bytes)
    return { type: 'oci-layout', path: directory }
  })
  await readEverything(kept)
})

test('a directory of files, and others beside it', async () => {
  await using kept = await keptIn(async directory => {
    for (const [index, bytes] of BLOBS.entries()) {
      const folder = path.join(directory, index === 0 ? 'first' : `other-${index}`)
      await fs.mkdir(folder)
      await fs.writeFile(path.join(folder, digestHex(digestOf(bytes))), bytes)
    }
    const [first, ...others] = ['first', 'other-1', 'other-2'].map(name => path.join(directory, name))
    return { type: 'localfs', dir: first, alt_dirs: others }
  })
  await readEverything(kept)
})

test('the partitions of a disk', async () => {
  await using kept = await keptIn(async directory => {
    const file = path.join(directory, 'disk.img')
    await writeDisk(file, { partitions: BLOBS.map(bytes => nydusPartition(digestOf(bytes), bytes)) })
    return { type: 'localdisk', device_path: file }
  })
  await readEverything(kept)
})

test('a web server', async () => {
  await using kept = await keptAt(
    url => ({ type: 'http', url: `${url}/v2/library/test/blobs` }),
    ({ headers }) => (headers.authorization === undefined ? undefined : { status: 400, code: 'NobodyAskedForIt' }),
  )
  await readEverything(kept)
})

test('a web server behind a password', async () => {
  const expected = `Basic ${Buffer.from(`node:${KEYS.secretAccessKey}`).toString('base64')}`
  await using kept = await keptAt(
    url => ({
      type: 'http',
      url: `${url}/v2/library/test/blobs`,
      username: 'node',
      password_file: 'env:ORIGIN_SECRET',
    }),
    ({ headers }) => (headers.authorization === expected ? undefined : { status: 401, code: 'WhoAreYou' }),
  )
  await readEverything(kept)
})

test('a bucket of S3 that checks every signature', async () => {
  const region = 'eu-test-1'
  await using kept = await keptAt(
    url => ({
      type: 's3',
      endpoint: url,
      bucket: 'v2',
      prefix: 'library/test/blobs/',
      region,
      access_key_id: KEYS.accessKeyId,
      secret_access_key_file: 'env:ORIGIN_SECRET',
    }),
    seen => verifySigV4(seen, { ...KEYS, region, now: Date.now() }),
  )
  await readEverything(kept)
})

test('a bucket of a real S3 server', { skip: skipS3 }, async () => {
  const server = await Versitygw.start()
  await using kept: Kept = {
    options: {
      type: 's3',
      endpoint: server.url,
      bucket: 'models',
      prefix: 'blobs/',
      region: server.region,
      access_key_id: server.keys.accessKeyId,
      secret_access_key_file: 'env:ORIGIN_SECRET',
    },
    env: { ORIGIN_SECRET: server.keys.secretAccessKey },
    leave: () => server[Symbol.asyncDispose](),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
  await server.createBucket('models')
  for (const bytes of BLOBS) await server.putObject('models', `blobs/${digestHex(digestOf(bytes))}`, bytes)
  await readEverything(kept)
})

test('a bucket of OSS that checks every signature', async () => {
  await using kept = await keptAt(
    url => ({
      type: 'oss',
      endpoint: url,
      bucket: 'v2',
      prefix: 'library/test/blobs/',
      access_key_id: KEYS.accessKeyId,
      secret_access_key_file: 'env:ORIGIN_SECRET',
    }),
    seen => verifyOss(seen, { ...KEYS, resource: decodeURIComponent(seen.path), now: Date.now() }),
  )
  await readEverything(kept)
})
