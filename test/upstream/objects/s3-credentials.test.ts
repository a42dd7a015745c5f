import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { systemClock } from '../../../src/core/index.ts'
import type { BucketCredentials } from '../../../src/upstream/objects/bucket-credentials.ts'
import { ChainCredentials, type CredentialProvider } from '../../../src/upstream/objects/s3-credentials.ts'
import { bytesOf, digestOf, generatedBlob } from '../../support/generated-blob.ts'
import type { SeenRequest } from '../../support/scripted-origin.ts'
import { until } from '../../support/until.ts'
import { keyOf, readRange, spelled, TestClock, TestLog } from '../rig.ts'
import { FakeImds } from './fake-imds.ts'
import { KEYS, openObjects, REGION, S3, type Objection, type ObjectRig } from './rig.ts'
import { verifySigV4 } from './sigv4-verifier.ts'

const BLOB = bytesOf(generatedBlob(10_000, 5))
const DIGEST = digestOf(BLOB)
const KEY = keyOf(DIGEST)
const blobs = new Map([[DIGEST, BLOB]])
const NO_KEYS = { accessKeyId: undefined, secretAccessKey: undefined }
const HOUR_MS = 60 * 60_000

/** Nothing that this machine may have counts, unless a test says so. */
const CLEAN = {
  AWS_EC2_METADATA_DISABLED: 'true',
  AWS_SHARED_CREDENTIALS_FILE: '/nowhere/credentials',
  AWS_CONFIG_FILE: '/nowhere/config',
}
const saved = process.env

beforeEach(() => {
  const others = Object.entries(saved).filter(([name]) => !name.startsWith('AWS_'))
  process.env = { ...Object.fromEntries(others), ...CLEAN }
})
afterEach(() => {
  process.env = saved
})

/** A bucket whose keys are looked for by the chain; what its server says to a request, `judge` decides. */
function openChained(judge: (seen: SeenRequest, now: number) => Objection | undefined): Promise<ObjectRig> {
  return openObjects({ ...S3, verify: (seen, clock) => judge(seen, clock.now()) }, { blobs }, NO_KEYS)
}

/** Wants signatures with the keys of that name. */
function wants(name: string): (seen: SeenRequest, now: number) => Objection | undefined {
  return (seen, now) => verifySigV4(seen, { ...keysOf(name), region: REGION, now })
}

function keysOf(name: string): BucketCredentials & { readonly sessionToken: string } {
  return { accessKeyId: `ASIA${name}`, secretAccessKey: `secret-of-${name}`, sessionToken: `token-of-${name}` }
}

/** A metadata service with the keys of that name, of which the environment tells. */
async function startImds(name?: string, expiresInMs = HOUR_MS): Promise<FakeImds> {
  const imds = await FakeImds.start()
  if (name !== undefined) give(imds, name, expiresInMs)
  process.env['AWS_EC2_METADATA_SERVICE_ENDPOINT'] = imds.url
  delete process.env['AWS_EC2_METADATA_DISABLED']
  return imds
}

function give(imds: FakeImds, name: string, expiresInMs = HOUR_MS): void {
  const { accessKeyId, secretAccessKey, sessionToken } = keysOf(name)
  imds.credentials = {
    AccessKeyId: accessKeyId,
    SecretAccessKey: secretAccessKey,
    Token: sessionToken,
    Expiration: new Date(Date.now() + expiresInMs).toISOString(),
  }
}

describe('where the configuration has no keys', () => {
  test('those of the environment are used, with their session token', async () => {
    const { accessKeyId, secretAccessKey, sessionToken } = keysOf('env')
    process.env['AWS_ACCESS_KEY_ID'] = accessKeyId
    process.env['AWS_SECRET_ACCESS_KEY'] = secretAccessKey
    process.env['AWS_SESSION_TOKEN'] = sessionToken
    await using rig = await openChained(wants('env'))
    assert.equal((await rig.origin.stat(KEY))?.visibility, 'shared')
    assert.ok((await readRange(rig.origin, DIGEST, { start: 0, end: 10 })).equals(BLOB.subarray(0, 10)))
  })

  test('those of the instance metadata are used, and asked for once', async () => {
    await using imds = await startImds('one')
    await using rig = await openChained(wants('one'))
    assert.equal(imds.fetched, 0)
    assert.equal((await rig.origin.stat(KEY))?.visibility, 'shared')
    await Promise.all([rig.origin.stat(KEY), readRange(rig.origin, DIGEST, { start: 0, end: 1 })])
    assert.equal(imds.fetched, 1)
  })

  for (const code of ['ExpiredToken', 'InvalidToken', 'InvalidAccessKeyId']) {
    test(`keys that get ${code} are replaced by fresh ones, and every request is repeated once`, async () => {
      await using imds = await startImds('one')
      let judge = wants('one')
      await using rig = await openChained((seen, now) => judge(seen, now))
      await rig.origin.stat(KEY)
      give(imds, 'two')
      const isStale = ({ headers }: SeenRequest): boolean =>
        headers['x-amz-security-token'] === keysOf('one').sessionToken
      judge = (seen, now) => (isStale(seen) ? { status: 400, code } : wants('two')(seen, now))
      const reads = Array.from({ length: 10 }, () => readRange(rig.origin, DIGEST, { start: 0, end: 10 }))
      for (const bytes of await Promise.all(reads)) assert.ok(bytes.equals(BLOB.subarray(0, 10)))
      // Ten at a time ask the metadata service once.
      assert.equal(imds.fetched, 2)
      assert.equal(rig.server.requests.length, 1 + 10 + 10)
      assert.equal(rig.clock.sleeps.length, 0)
    })
  }

  test('keys that are about to expire are renewed without any refusal', async () => {
    await using imds = await startImds('one', 60_000)
    await using rig = await openChained(() => undefined)
    const tokenUsed = async (): Promise<unknown> => {
      await rig.origin.stat(KEY)
      return rig.server.requests.at(-1)?.headers['x-amz-security-token']
    }
    assert.equal(await tokenUsed(), keysOf('one').sessionToken)
    give(imds, 'two')
    await until(async () => (await tokenUsed()) === keysOf('two').sessionToken)
  })

  test('none at all: requests are not signed, what is read is public, and nobody is asked twice', async () => {
    await using imds = await startImds()
    await using rig = await openChained(() => undefined)
    assert.equal((await rig.origin.stat(KEY))?.visibility, 'public')
    const { asked } = imds
    assert.ok(asked > 0)
    await readRange(rig.origin, DIGEST, { start: 0, end: 10 })
    assert.equal(imds.asked, asked)
    assert.ok(rig.server.requests.every(({ headers }) => headers.authorization === undefined))
    assert.deepEqual(rig.log.lines, ['no credentials found, requests go unsigned {}'])
  })

  test('a refusal of an unsigned request makes it look again, at most every half minute', async () => {
    await using imds = await startImds()
    await using rig = await openChained(wants('one'))
    const refused = { code: 'ERR_UPSTREAM_AUTH', message: /no credentials were found/ }
    await assert.rejects(rig.origin.stat(KEY), refused)
    give(imds, 'one')
    await assert.rejects(rig.origin.stat(KEY), refused)
    assert.equal(imds.fetched, 0)
    rig.clock.time += 31_000
    assert.equal((await rig.origin.stat(KEY))?.visibility, 'shared')
  })
})

describe('the chain of credentials', () => {
  const none: CredentialProvider = () =>
    Promise.reject(Object.assign(new Error('none'), { name: 'CredentialsProviderError' }))
  const chain = (provider: CredentialProvider, clock = new TestClock()): ChainCredentials =>
    new ChainCredentials({ clock, log: new TestLog(), provider })

  test('a failure that is no absence is an error that does not repeat what the chain said', async () => {
    const credentials = chain(() => Promise.reject(new TypeError('Command failed: print --password hunter2')))
    await assert.rejects(credentials.get({}), (error: unknown) => {
      assert.match(spelled(error), /the credentials for the bucket cannot be had \(TypeError\)/)
      return !spelled(error).includes('hunter2')
    })
  })

  test('who had credentials does not become anonymous when their source goes away', async () => {
    let provider: CredentialProvider = () => Promise.resolve(KEYS)
    const credentials = chain(options => provider(options))
    assert.equal((await credentials.get({}))?.accessKeyId, KEYS.accessKeyId)
    provider = none
    await assert.rejects(credentials.get({}), { code: 'ERR_UPSTREAM_AUTH', message: /\(CredentialsProviderError\)$/ })
  })

  test('a caller that leaves gets its reason, and the others what they wait for', async () => {
    let resolve: (keys: typeof KEYS) => void = () => undefined
    const credentials = chain(() => new Promise<typeof KEYS>(done => (resolve = done)))
    const controller = new AbortController()
    const reason = new Error('left')
    const left = credentials.get({ signal: controller.signal })
    controller.abort(reason)
    await assert.rejects(left, thrown => thrown === reason)
    const stayed = credentials.get({})
    resolve(KEYS)
    assert.equal((await stayed)?.accessKeyId, KEYS.accessKeyId)
  })

  test('a chain that does not answer is given up after ten seconds', async t => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const waiting = chain(() => new Promise(() => undefined)).get({})
    t.mock.timers.tick(10_000)
    await assert.rejects(waiting, { code: 'ERR_UPSTREAM_AUTH', message: /cannot be had \(TimeoutError\)$/ })
  })

  test('fresh credentials that are the refused ones are none', async () => {
    const asked: (boolean | undefined)[] = []
    const credentials = chain(options => {
      asked.push(options?.forceRefresh)
      return Promise.resolve(KEYS)
    })
    const refused = await credentials.get({})
    assert.equal(await credentials.renew(refused, {}), undefined)
    assert.deepEqual(asked, [undefined, undefined, true])
    assert.equal(await credentials.renew(refused, {}), undefined)
    assert.equal(asked.filter(force => force === true).length, 1)
  })

  test('it is loaded without asking anybody', async () => {
    const credentials = await ChainCredentials.open({ clock: systemClock, log: new TestLog() })
    assert.equal(await credentials.get({}), undefined)
  })
})
