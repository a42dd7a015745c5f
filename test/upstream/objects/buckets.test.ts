import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { systemClock } from '../../../src/core/index.ts'
import { fixedCredentials } from '../../../src/upstream/objects/bucket-credentials.ts'
import { placeOf } from '../../../src/upstream/objects/bucket-place.ts'
import { BucketServer } from '../../../src/upstream/objects/bucket-server.ts'
import { ObjectOrigin, openOssOrigin } from '../../../src/upstream/objects/index.ts'
import { ossSigner } from '../../../src/upstream/objects/oss-signer.ts'
import { s3Signer } from '../../../src/upstream/objects/s3-signer.ts'
import { createUpstreamMetrics } from '../../../src/upstream/metrics.ts'
import { readTlsMaterial } from '../../../src/upstream/net/tls.ts'
import { Transport } from '../../../src/upstream/net/transport.ts'
import { bytesOf, digestOf, generatedBlob } from '../../support/generated-blob.ts'
import { startScriptedOrigin, type SeenRequest } from '../../support/scripted-origin.ts'
import { keyOf, readRange, spelled, testDeps } from '../rig.ts'
import { verifyOss } from './oss-verifier.ts'
import {
  asFault,
  BUCKET,
  byHex,
  CONNECTION,
  KEYS,
  openObjects,
  OSS,
  PREFIX,
  REGION,
  S3,
  type Objection,
} from './rig.ts'
import { verifySigV4 } from './sigv4-verifier.ts'

const BLOB = bytesOf(generatedBlob(10_000, 5))
const DIGEST = digestOf(BLOB)
const KEY = keyOf(DIGEST)
const blobs = new Map([[DIGEST, BLOB]])
const TOKEN = 'the-session-token-of-the-node=='

for (const dialect of [S3, OSS]) {
  describe(`a bucket of ${dialect.kind}`, () => {
    const refusals: [string, Objection, { code: string; message: RegExp }][] = [
      [
        'no such bucket',
        { status: 404, code: 'NoSuchBucket' },
        { code: 'ERR_UPSTREAM_STATUS', message: /404 \(NoSuchBucket\): there is no bucket "v2"$/ },
      ],
      [
        'access denied',
        { status: 403, code: 'AccessDenied' },
        { code: 'ERR_UPSTREAM_AUTH', message: /403 \(AccessDenied\): the credentials do not suffice; absent objects/ },
      ],
      [
        'a clock that is wrong',
        { status: 403, code: 'RequestTimeTooSkewed' },
        { code: 'ERR_UPSTREAM_AUTH', message: /403 \(RequestTimeTooSkewed\): the clocks of the two differ/ },
      ],
      [
        'expired credentials, without any others',
        { status: 400, code: 'ExpiredToken' },
        { code: 'ERR_UPSTREAM_AUTH', message: /400 \(ExpiredToken\): the credentials have expired/ },
      ],
      [
        'a wrong secret',
        { status: 403, code: 'SignatureDoesNotMatch' },
        { code: 'ERR_UPSTREAM_AUTH', message: /\(SignatureDoesNotMatch\): the secret key or the region is wrong$/ },
      ],
      [
        'a redirect to another region',
        {
          status: 301,
          code: 'PermanentRedirect',
          headers: { 'x-amz-bucket-region': 'eu-other-1', location: 'http://127.0.0.1:1/' },
        },
        { code: 'ERR_UPSTREAM_STATUS', message: /301 \(PermanentRedirect\): the bucket "v2" is at eu-other-1; set/ },
      ],
      [
        'a redirect to nobody knows where',
        { status: 307, code: 'TemporaryRedirect', headers: { location: 'http://127.0.0.1:1/' } },
        { code: 'ERR_UPSTREAM_STATUS', message: /307 \(TemporaryRedirect\): the bucket is elsewhere/ },
      ],
      [
        'a region that the document names',
        { status: 400, code: 'AuthorizationHeaderMalformed', more: '<Region>eu-other-1</Region>' },
        { code: 'ERR_UPSTREAM_STATUS', message: /the bucket "v2" is at eu-other-1; set/ },
      ],
      [
        'an endpoint that the document names',
        { status: 403, code: 'AccessDenied', more: '<Endpoint>oss-other.example</Endpoint>' },
        { code: 'ERR_UPSTREAM_STATUS', message: /the bucket "v2" is at oss-other.example; set/ },
      ],
      [
        'access denied in the right region',
        { status: 403, code: 'AccessDenied', headers: { 'x-amz-bucket-region': REGION } },
        { code: 'ERR_UPSTREAM_AUTH', message: /the credentials do not suffice/ },
      ],
      [
        'something else',
        { status: 400, code: 'MalformedThing' },
        { code: 'ERR_UPSTREAM_STATUS', message: /answered 400 \(MalformedThing\)$/ },
      ],
    ]
    for (const [what, objection, failure] of refusals) {
      test(`${what} is an error that says so, for HEAD too, which has no document`, async () => {
        await using rig = await openObjects(dialect, { blobs, object: () => objection })
        await assert.rejects(rig.origin.stat(KEY), failure)
        await assert.rejects(rig.origin.open(KEY, { start: 0, end: 10 }), failure)
        await assert.rejects(rig.origin.begin(KEY, { start: 0, end: 10 }), failure)
        assert.equal(rig.clock.sleeps.length, 0)
      })
    }

    test('a document that is no document does not hide the status, and is not repeated', async () => {
      for (const body of [
        '',
        '<Code>',
        `<Code>${' '.repeat(60_000)}`,
        '<Code>${secret} & more</Code>',
        'x'.repeat(200_000),
      ]) {
        await using rig = await openObjects(dialect, { blobs })
        rig.server.fault = () => ({ status: 403, body })
        await assert.rejects(rig.origin.stat(KEY), {
          code: 'ERR_UPSTREAM_AUTH',
          message: /refused with 403: the credentials do not suffice/,
        })
        rig.server.fault = () => ({ status: 418, body })
        await assert.rejects(rig.origin.stat(KEY), { code: 'ERR_UPSTREAM_STATUS', message: /answered 418$/ })
      }
    })

    test('a HEAD that is refused although GET is not is answered by GET', async () => {
      await using rig = await openObjects(dialect, {
        blobs,
        object: ({ method }) => (method === 'HEAD' ? { status: 403, code: 'AccessDenied' } : undefined),
      })
      assert.equal((await rig.origin.stat(KEY))?.size, BLOB.length)
    })

    test('a signature with another secret is refused, and no error or log line holds a secret', async () => {
      const secretAccessKey = 'another/secret+key'
      await using rig = await openObjects(dialect, { blobs }, { secretAccessKey, sessionToken: TOKEN })
      await assert.rejects(rig.origin.stat(KEY), (error: unknown) => {
        const said = `${spelled(error)} ${rig.log.lines.join('\n')}`
        return !said.includes(secretAccessKey) && !said.includes(TOKEN)
      })
      assert.ok(rig.server.requests.every(({ headers }) => headers.authorization !== undefined))
    })

    test('what was read with credentials is shared', async () => {
      await using rig = await openObjects(dialect, { blobs })
      assert.equal((await rig.origin.stat(KEY))?.visibility, 'shared')
    })

    test('a configuration that cannot work is refused before anything is asked', async () => {
      await using server = await startScriptedOrigin()
      for (const [more, message] of [
        [{ endpoint: 'nowhere' }, /^origins\."registry\.test"\.endpoint is not a URL/],
        [{ endpoint: 'ftp://h.example' }, /endpoint must begin with https/],
        [{ endpoint: 'https://user:hunter2@h.example' }, /endpoint must not hold a credential$/],
        [{ endpoint: 'https://h.example/path' }, /endpoint must be a host, without a path$/],
        [{ endpoint: 'https://h.example/?q' }, /endpoint must not have a query or a fragment$/],
        [{ bucket: '' }, /bucket is not the name of a bucket$/],
        [{ bucket: 'a/b' }, /bucket is not the name of a bucket$/],
        [{ bucket: 'a_b', endpoint: 'https://h.example', pathStyle: false }, /bucket cannot be part of a host name/],
        [{ prefix: 'a/../b/' }, /prefix must not have "\." or "\.\."/],
        [{ secretAccessKey: undefined }, /needs both access_key_id and secret_access_key_file/],
        [{ accessKeyId: undefined, secretAccessKey: undefined, sessionToken: TOKEN }, /needs both/],
        [{ tls: { ca: ['/nowhere.pem'], clients: [], skipVerify: false } }, /nowhere\.pem/],
      ] as const) {
        await assert.rejects(dialect.open(testDeps(), server, more), { code: 'ERR_CONFIG_INVALID', message })
      }
    })
  })
}

test('an address cannot carry a bucket in its host', () => {
  for (const endpoint of ['http://127.0.0.1:9000', 'http://[::1]:9000', 'http://localhost']) {
    assert.throws(() => placeOf('models', { endpoint, bucket: 'b', prefix: '' }, { pathStyle: false }), {
      code: 'ERR_CONFIG_INVALID',
      message: 'origins."models".endpoint is an address, which no bucket can stand before: use path_style',
    })
  }
})

test('the bucket is part of the path or of the host, and the port of an endpoint is kept', () => {
  const urlOf = (endpoint: string, pathStyle: boolean): string =>
    placeOf('models', { endpoint, bucket: 'my-bucket', prefix: 'a b/' }, { pathStyle }).urlOf('00ff').href
  assert.equal(urlOf('https://s3.example', true), 'https://s3.example/my-bucket/a%20b/00ff')
  assert.equal(urlOf('https://s3.example/', false), 'https://my-bucket.s3.example/a%20b/00ff')
  assert.equal(urlOf('http://s3.example:9000', true), 'http://s3.example:9000/my-bucket/a%20b/00ff')
  assert.equal(urlOf('http://s3.example:9000', false), 'http://my-bucket.s3.example:9000/a%20b/00ff')
  assert.equal(urlOf('https://s3.example:443', false), 'https://my-bucket.s3.example/a%20b/00ff')
})

test('whatever the prefix is, the key that arrives is that prefix and the hex, and the signature holds', async () => {
  const keys = { ...KEYS, sessionToken: TOKEN }
  const clock = { ...systemClock, now: () => Date.UTC(2026, 0, 1) }
  const [s3, oss] = [
    await s3Signer({ clock }, { region: REGION }),
    ossSigner({ clock }, { bucket: 'b', pathStyle: true }),
  ]
  const prefixes = fc
    .string({
      unit: fc.oneof(
        fc.constantFrom('/', '%', '+', ' ', '?', '#', '&', "'", '(', ')', '*', '!', '~', '.', ':', '\\', 'é'),
        fc.string({ unit: 'grapheme', minLength: 1, maxLength: 1 }),
      ),
    })
    .filter(prefix => !prefix.split('/').some(part => part === '.' || part === '..'))
  await fc.assert(
    fc.asyncProperty(prefixes, async prefix => {
      const url = placeOf(
        'models',
        { endpoint: 'http://h.example:81', bucket: 'b', prefix },
        { pathStyle: true },
      ).urlOf('f0')
      assert.equal(decodeURIComponent(url.pathname), `/b/${prefix}f0`)
      assert.equal(url.search + url.hash, '')
      const request = { method: 'GET', url: url.pathname }
      const headers = await s3({ method: 'GET', url }, keys)
      const expected = { ...keys, now: clock.now() }
      assert.equal(verifySigV4({ ...request, headers }, { ...expected, region: REGION }), undefined)
      const ossHeaders = await oss({ method: 'GET', url }, keys)
      assert.equal(
        verifyOss({ ...request, headers: ossHeaders }, { ...expected, resource: `/b/${prefix}f0` }),
        undefined,
      )
    }),
    { numRuns: 200 },
  )
})

for (const kind of ['s3', 'oss'] as const) {
  test(`a bucket of ${kind} in the host name is signed as such, with the port`, async () => {
    const host = 'my-bucket.objects.example:9000'
    const place = placeOf(
      'models',
      { endpoint: 'http://objects.example:9000', bucket: 'my-bucket', prefix: `${BUCKET}/${PREFIX}` },
      { pathStyle: false },
    )
    const deps = testDeps(systemClock)
    const sign =
      kind === 's3'
        ? await s3Signer(deps, { region: REGION })
        : ossSigner(deps, { bucket: 'my-bucket', pathStyle: false })
    const refused: unknown[] = []
    await using server = await startScriptedOrigin({
      blobs: byHex(blobs),
      fault: seen => {
        const expected = { ...KEYS, now: Date.now(), region: REGION, resource: `/my-bucket${seen.path}` }
        const objection = kind === 's3' ? verifySigV4(seen, expected) : verifyOss(seen, expected)
        if (objection !== undefined || seen.headers.host !== host) refused.push(objection, seen.headers.host)
        return undefined
      },
    })
    const metrics = createUpstreamMetrics(deps.metrics)
    const tls = await readTlsMaterial(CONNECTION.tls)
    const real = new Transport({ clock: systemClock, metrics }, { ...CONNECTION, base: new URL(server.url), tls })
    // No DNS knows the bucket: every connection goes to the server, with the Host header that was meant.
    const transport: Pick<Transport, 'close' | 'send'> = {
      send: ({ host: meant, pathname }, request) =>
        real.send(new URL(pathname, server.url), { ...request, headers: { ...request.headers, host: meant } }),
      close: () => real.close(),
    }
    const credentials = fixedCredentials(KEYS)
    const bucket = new BucketServer({ transport, place, credentials, sign }, { bucket: 'my-bucket' })
    await using origin = new ObjectOrigin({ ...deps, metrics, server: bucket }, { name: `${kind}:models`, retries: 0 })
    assert.equal((await origin.stat(KEY))?.size, BLOB.length)
    assert.ok((await readRange(origin, DIGEST, { start: 5, end: 500 })).equals(BLOB.subarray(5, 500)))
    assert.deepEqual(refused, [])
    assert.equal(server.requests.length, 2)
  })
}

test('OSS takes its credentials from the environment, where the configuration has none', async () => {
  await using rig = await openObjects(OSS, { blobs })
  const options = { ...CONNECTION, type: 'oss', endpoint: rig.server.url, bucket: BUCKET, prefix: PREFIX } as const
  const seen: SeenRequest[] = rig.server.requests
  rig.server.fault = request => {
    const expected = { ...KEYS, sessionToken: TOKEN, resource: request.path, now: rig.clock.now() }
    const objection = request.headers.authorization === undefined ? undefined : verifyOss(request, expected)
    return objection === undefined ? undefined : asFault(objection)
  }
  const env = {
    OSS_ACCESS_KEY_ID: KEYS.accessKeyId,
    OSS_ACCESS_KEY_SECRET: KEYS.secretAccessKey,
    OSS_SESSION_TOKEN: TOKEN,
  }
  await using origin = await openOssOrigin({ ...rig.deps, env }, options)
  assert.equal((await origin.stat(KEY))?.visibility, 'shared')
  assert.equal(seen.at(-1)?.headers['x-oss-security-token'], TOKEN)

  await using anonymous = await openOssOrigin({ ...rig.deps, env: { ...env, OSS_ACCESS_KEY_SECRET: '' } }, options)
  assert.equal((await anonymous.stat(KEY))?.visibility, 'public')
  assert.equal(seen.at(-1)?.headers.authorization, undefined)
  rig.server.fault = () => asFault({ status: 403, code: 'AccessDenied' })
  await assert.rejects(anonymous.stat(KEY), {
    code: 'ERR_UPSTREAM_AUTH',
    message: /no credentials were found, so the request was not signed$/,
  })
})
