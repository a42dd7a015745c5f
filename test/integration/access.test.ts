import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { describe, test } from 'node:test'
import { ShoalError, systemClock } from '../../src/core/index.ts'
import { OriginTable, type OriginTableOptions } from '../../src/upstream/index.ts'
import type { Fetched } from '../support/client.ts'
import { DIALECTS, PolyglotShoal, type Asked } from '../support/dialects.ts'
import { DockerRegistry } from '../support/docker-registry.ts'
import { fixtureImage } from '../support/fixture-image.ts'
import { bytesOf, generatedBlob } from '../support/generated-blob.ts'
import { openMirror } from '../support/mirror-rig.ts'
import { startShoal, type ConfigTables } from '../support/shoal.ts'
import { basic, startScriptedOrigin, type ScriptedOrigin, type SeenRequest } from '../support/scripted-origin.ts'
import { skipWithout, temporaryDirectory } from '../support/tools.ts'
import { until } from '../support/until.ts'
import { TestClock, testDeps } from '../upstream/rig.ts'

const skipRegistry = await skipWithout(['docker-registry', 'skopeo', 'htpasswd'])
const KIB = 1024
const REGISTRY = 'private.test'
const APP = 'team/app'
const OTHER = 'other/app'
const OPEN = 'open/app'
const USERS = { alice: 'password-of-alice', bob: 'password-of-bob', node: 'password-of-the-node' }
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'

/** alice may pull what is her team's, bob something else, and everybody what is open. */
function mayPull(user: string | undefined, repository: string): boolean {
  if (repository === OPEN) return true
  return user === 'node' || (user === 'alice' && repository === APP) || (user === 'bob' && repository === OTHER)
}

function startOrigin(more: { tokenSeconds?: number; jwt?: boolean } = {}): Promise<ScriptedOrigin> {
  return startScriptedOrigin({ auth: { kind: 'token', users: USERS, mayPull, ...more } })
}

function startPolyglot(origin: ScriptedOrigin, entry: object = {}, config: ConfigTables = {}): Promise<PolyglotShoal> {
  return PolyglotShoal.start({
    registry: REGISTRY,
    entry: { host: origin.url, ...entry },
    repositories: [APP, OTHER, OPEN],
    config: { upstream: { retries: 0 }, ...config },
  })
}

let seeds = 0

/** A blob that no other test has. */
function addBlob(origin: ScriptedOrigin, size = 70 * KIB): { digest: string; resource: string; bytes: Buffer } {
  seeds += 1
  const content = generatedBlob(size, seeds)
  const digest = origin.add(content)
  return { digest, resource: `blobs/${digest}`, bytes: bytesOf(content) }
}

function bearer(token: string): Record<string, string> {
  return { authorization: `Bearer ${token}` }
}

/** Ways of asking that must all be refused alike: none of them may tell more than the others. */
function variantsOf(digest: string): readonly Pick<Asked, 'method' | 'headers'>[] {
  return [
    {},
    { method: 'HEAD' },
    { headers: { range: 'bytes=0-99' } },
    { headers: { range: 'bytes=20000-60000' } },
    { headers: { range: 'bytes=0-9,100-109' } },
    { headers: { range: 'bytes=999999999-' } },
    { headers: { 'if-none-match': `"${digest}"` } },
    { headers: { 'if-none-match': '*' } },
    { headers: { range: 'bytes=0-99', 'if-range': `"${digest}"` } },
    { headers: { 'x-dragonfly-prefetch': 'true', range: 'bytes=0-9' } },
    { headers: { 'x-dragonfly-priority': '2', range: 'bytes=0-9' } },
    { headers: { 'x-dragonfly-use-p2p': 'true' } },
  ]
}

/** Neither bytes nor anything that tells of them. */
function assertRefused(
  answer: Fetched,
  bytes: Buffer,
  what: string,
  statuses: readonly number[] = [401, 403, 404],
): void {
  assert.ok(statuses.includes(answer.status), `${what}: ${answer.status}`)
  assert.ok(!answer.body.includes(bytes.subarray(0, 10)), `${what}: its bytes`)
  for (const name of [
    'docker-content-digest',
    'etag',
    'x-cache',
    'content-range',
    'x-dragonfly-task-download-finished',
  ])
    assert.equal(answer.headers[name], undefined, `${what}: ${name}`)
}

async function stored(shoal: PolyglotShoal, asked: Asked): Promise<void> {
  await until(async () => (await shoal.ask('ns', { ...asked, method: 'HEAD' })).headers['x-cache'] === 'hit')
}

/** The callers who have no right to what alice has just read. */
function strangers(origin: ScriptedOrigin): Readonly<Record<string, Record<string, string>>> {
  return {
    nobody: {},
    'a wrong token': bearer('nonsense'),
    'an empty one': { authorization: '' },
    'a token of bob, for another repository': bearer(origin.auth.tokenFor('bob', OTHER)),
    'a token of alice, for another repository': bearer(origin.auth.tokenFor('alice', OTHER)),
    'a password where a token is due': { authorization: basic('alice', USERS.alice) },
  }
}

describe('a private blob', () => {
  test('that one caller brought in by one dialect is refused to every other by every dialect, however it is asked for', async () => {
    await using origin = await startOrigin()
    await using shoal = await startPolyglot(origin)
    const alice = bearer(origin.auth.tokenFor('alice', APP))
    let refusals = 0
    for (const brought of DIALECTS) {
      const { bytes, digest, resource } = addBlob(origin)
      const asked = { repository: APP, resource, headers: alice }
      const cold = await shoal.ask(brought, asked)
      assert.equal(cold.status, 200, brought)
      assert.ok(cold.body.equals(bytes))
      await stored(shoal, asked)
      for (const dialect of DIALECTS) {
        // Its place among the URLs that are answered at once.
        const warm = await shoal.ask(dialect, asked)
        assert.equal(warm.headers['x-cache'], 'hit', `${brought}, then ${dialect}`)
        for (const [who, headers] of Object.entries(strangers(origin))) {
          for (const [index, variant] of variantsOf(digest).entries()) {
            // All of them where it was brought in, and a part, ever another, for each other pair of dialects.
            if (brought !== dialect && (index + refusals) % 4 !== 0) continue
            const answer = await shoal.ask(dialect, {
              ...asked,
              ...variant,
              headers: { ...variant.headers, ...headers },
            })
            assertRefused(answer, bytes, `${brought}, then ${dialect}, ${who}, ${JSON.stringify(variant)}`)
            refusals += 1
          }
        }
      }
      assert.equal((await shoal.ask('default', asked)).headers['x-cache'], 'hit', 'alice is served all along')
    }
    assert.ok(refusals > 1_000, `${refusals} times`)
  })

  test('is not to be had through another repository, where it is not or where somebody else has rights', async () => {
    await using origin = await startOrigin()
    await using shoal = await startPolyglot(origin)
    const { bytes, digest, resource } = addBlob(origin)
    let isInOther = false
    origin.fault = ({ reference, repository }) =>
      reference === digest && repository !== APP && !(repository === OTHER && isInOther) ? { status: 404 } : undefined
    const alice = bearer(origin.auth.tokenFor('alice', APP))
    const bob = bearer(origin.auth.tokenFor('bob', OTHER))
    assert.equal((await shoal.ask('ns', { repository: APP, resource, headers: alice })).status, 200)
    await stored(shoal, { repository: APP, resource, headers: alice })
    for (const dialect of DIALECTS) {
      const other = { repository: OTHER, resource }
      assertRefused(await shoal.ask(dialect, { ...other, headers: bob }), bytes, `bob, ${dialect}`, [404])
      assertRefused(await shoal.ask(dialect, { ...other, headers: alice }), bytes, `alice, ${dialect}`)
      assertRefused(await shoal.ask(dialect, { repository: OPEN, resource }), bytes, dialect, [404])
      assertRefused(await shoal.ask(dialect, { repository: APP, resource, headers: bob }), bytes, dialect, [401])
    }
    // Where bob could have pulled it, he gets it, and it is not fetched again.
    isInOther = true
    const sent = origin.bytesSent.get(digest)
    const answer = await shoal.ask('ns', { repository: OTHER, resource, headers: bob })
    assert.ok(answer.body.equals(bytes))
    assert.equal(origin.bytesSent.get(digest), sent)
  })

  test('is refused while the origin is down, except to whom it was proven lately', async () => {
    await using origin = await startOrigin()
    await using shoal = await startPolyglot(origin)
    const hidden = addBlob(origin)
    const open = addBlob(origin)
    const alice = bearer(origin.auth.tokenFor('alice', APP))
    const bob = bearer(origin.auth.tokenFor('bob', OTHER))
    const fresh = bearer(origin.auth.tokenFor('alice', APP))
    for (const [asked, headers] of [
      [{ repository: APP, resource: hidden.resource }, alice],
      [{ repository: OPEN, resource: open.resource }, {}],
    ] as const) {
      assert.equal((await shoal.ask('ns', { ...asked, headers })).status, 200)
      await stored(shoal, { ...asked, headers })
    }
    await origin.close()
    for (const dialect of DIALECTS) {
      const served = await shoal.ask(dialect, { repository: OPEN, resource: open.resource, headers: bob })
      assert.ok(served.body.equals(open.bytes), `${dialect}: what is public is served to all`)
      const asked = { repository: APP, resource: hidden.resource }
      assert.ok((await shoal.ask(dialect, { ...asked, headers: alice })).body.equals(hidden.bytes))
      for (const headers of [{}, bob, fresh]) {
        const answer = await shoal.ask(dialect, { ...asked, headers })
        assertRefused(answer, hidden.bytes, dialect, [503])
        assert.ok(answer.headers['retry-after'] !== undefined)
      }
      // What is public in one place is not in another.
      assertRefused(await shoal.ask(dialect, { repository: APP, resource: open.resource }), open.bytes, dialect, [503])
    }
  })

  test('is lost to a token that says itself when it expires, at that time', async () => {
    await using origin = await startOrigin({ tokenSeconds: 2, jwt: true })
    await using shoal = await startPolyglot(origin)
    const { bytes, resource } = addBlob(origin)
    const asked = { repository: APP, resource, headers: bearer(origin.auth.tokenFor('alice', APP)) }
    assert.equal((await shoal.ask('ns', asked)).status, 200)
    let last = await shoal.ask('ns', asked)
    assert.equal(last.status, 200)
    await until(async () => (last = await shoal.ask('ns', asked)).status !== 200, 5_000)
    for (const dialect of DIALECTS) assertRefused(await shoal.ask(dialect, asked), bytes, dialect, [401])
  })

  test('stays whose it is when the URL is the same and the Authorization is another, over one connection', async () => {
    await using origin = await startOrigin()
    await using shoal = await startPolyglot(origin)
    const { bytes, resource } = addBlob(origin)
    const alice = { repository: APP, resource, headers: bearer(origin.auth.tokenFor('alice', APP)) }
    const mallory = { ...alice, headers: bearer('nonsense') }
    assert.equal((await shoal.ask('default', alice)).status, 200)
    await stored(shoal, alice)
    for (let round = 0; round < 20; round += 1) {
      // Small ones are copied, larger ones are sent from the page cache: both at once.
      const headers = { range: round % 2 === 0 ? 'bytes=0-999' : 'bytes=0-49999' }
      const [good, bad, none] = await Promise.all([
        shoal.ask('default', { ...alice, headers: { ...alice.headers, ...headers } }),
        shoal.ask('default', { ...mallory, headers: { ...mallory.headers, ...headers } }),
        shoal.ask('default', { ...alice, headers }),
      ])
      assert.ok(good.body.equals(bytes.subarray(0, round % 2 === 0 ? 1_000 : 50_000)))
      assertRefused(bad, bytes, 'a wrong token', [401])
      assertRefused(none, bytes, 'no token', [401])
    }
  })

  test(
    'behind a password is refused in every dialect to whoever does not know it',
    { skip: skipRegistry },
    async () => {
      const image = await fixtureImage()
      const credentials = { username: 'alice', password: 'a-password' }
      await using registry = await DockerRegistry.start({ credentials })
      await registry.push({ ...image, repository: APP })
      await using shoal = await PolyglotShoal.start({
        registry: REGISTRY,
        entry: { host: registry.url },
        repositories: [APP],
      })
      const { digest } = image.config
      const bytes = await fs.readFile(path.join(image.layout, 'blobs', ...digest.split(':')))
      const good = { authorization: basic('alice', 'a-password') }
      for (const dialect of DIALECTS) {
        const asked = { repository: APP, resource: `blobs/${digest}` }
        assert.ok((await shoal.ask(dialect, { ...asked, headers: good })).body.equals(bytes), dialect)
        for (const headers of [{}, { authorization: basic('alice', 'guess') }, bearer('a-password')]) {
          const answer = await shoal.ask(dialect, { ...asked, headers })
          assertRefused(answer, bytes, dialect, [401])
          assert.equal(answer.headers['www-authenticate'], 'Basic realm="test"')
        }
      }
    },
  )
})

describe('a private manifest', () => {
  test('by tag, by digest and as a blob, its layers as manifests, and lists are for those alone who may pull', async () => {
    await using origin = await startOrigin()
    await using shoal = await startPolyglot(origin)
    const layer = addBlob(origin)
    const body = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, of: 'alice' }))
    const digest = origin.addManifest({ mediaType: MANIFEST, body }, 'v1')
    origin.tags = ['v1', 'the-secret-tag']
    const alice = bearer(origin.auth.tokenFor('alice', APP))
    for (const resource of ['manifests/v1', `manifests/${digest}`, layer.resource]) {
      for (let round = 0; round < 2; round += 1)
        assert.equal((await shoal.ask('ns', { repository: APP, resource, headers: alice })).status, 200)
    }
    await stored(shoal, { repository: APP, resource: layer.resource, headers: alice })
    const resources = [
      'manifests/v1',
      `manifests/${digest}`,
      `blobs/${digest}`,
      `manifests/${layer.digest}`,
      'tags/list',
      `referrers/${digest}`,
    ]
    for (const isDown of [false, true]) {
      if (isDown) await origin.close()
      for (const resource of resources) {
        for (const dialect of ['header', 'host'] as const) {
          for (const [who, headers] of Object.entries(strangers(origin))) {
            for (const variant of [{}, { method: 'HEAD' }, { headers: { 'if-none-match': `"${digest}"` } }]) {
              const answer = await shoal.ask(dialect, {
                repository: APP,
                resource,
                ...variant,
                headers: { ...variant.headers, ...headers },
              })
              const what = `${resource} by ${dialect}, ${who}, down: ${String(isDown)}`
              assertRefused(answer, body, what, isDown ? [401, 503] : [401, 404])
              assert.ok(!answer.body.includes('the-secret-tag'), what)
            }
          }
        }
      }
    }
    const again = await shoal.ask('ns', { repository: APP, resource: 'manifests/v1', headers: alice })
    assert.ok(again.body.equals(body), 'alice still has it')
  })
})

describe('visibility as configured', () => {
  test('public: no credential is sent, neither the node’s nor the caller’s, and a refusal is the last word', async () => {
    await using origin = await startOrigin()
    await using secrets = await passwordFile(USERS.node)
    await using shoal = await startPolyglot(origin, { visibility: 'public' })
    const open = addBlob(origin)
    const hidden = addBlob(origin)
    const alice = bearer(origin.auth.tokenFor('alice', APP))
    for (const dialect of DIALECTS) {
      const served = await shoal.ask(dialect, { repository: OPEN, resource: open.resource, headers: bearer('mine') })
      assert.ok(served.body.equals(open.bytes))
      const asked = { repository: APP, resource: hidden.resource, headers: alice }
      assertRefused(await shoal.ask(dialect, asked), hidden.bytes, dialect, [401])
    }
    assertNoneSent(origin.requests, [alice['authorization'] ?? '', 'Bearer mine', 'Basic '])
    assert.ok(secrets.file !== '')
  })

  test('shared: the node’s credential opens it to everybody, and callers’ own are not passed on', async () => {
    await using origin = await startOrigin()
    await using secrets = await passwordFile(USERS.node)
    await using shoal = await startPolyglot(origin, {
      visibility: 'shared',
      username: 'node',
      password_file: secrets.file,
    })
    const { bytes, resource } = addBlob(origin)
    for (const headers of [{}, bearer('nonsense'), { authorization: basic('mallory', 'x') }]) {
      for (const dialect of DIALECTS)
        assert.ok((await shoal.ask(dialect, { repository: APP, resource, headers })).body.equals(bytes))
    }
    assertNoneSent(origin.requests, ['Bearer nonsense', basic('mallory', 'x')])
    await origin.close()
    assert.ok(
      (await shoal.ask('ns', { repository: APP, resource })).body.equals(bytes),
      'also while the origin is down',
    )
  })

  test('private: the node’s credential is not used, and what anybody may read is proven for each caller', async () => {
    await using origin = await startOrigin()
    await using secrets = await passwordFile(USERS.node)
    await using shoal = await startPolyglot(origin, {
      visibility: 'private',
      username: 'node',
      password_file: secrets.file,
    })
    const { bytes, resource } = addBlob(origin)
    const alice = bearer(origin.auth.tokenFor('alice', APP))
    for (const dialect of DIALECTS) {
      assertRefused(await shoal.ask(dialect, { repository: APP, resource }), bytes, dialect, [401])
      assert.ok((await shoal.ask(dialect, { repository: APP, resource, headers: alice })).body.equals(bytes))
      assertRefused(await shoal.ask(dialect, { repository: APP, resource }), bytes, dialect, [401])
    }
    assertNoneSent(origin.requests, [basic('node', USERS.node)])
  })

  test('changed from shared to private, what everybody could read is everybody’s no longer, not even while the origin is down', async () => {
    await using origin = await startOrigin()
    await using secrets = await passwordFile(USERS.node)
    await using directory = await temporaryDirectory()
    const { bytes, resource } = addBlob(origin)
    const body = Buffer.from('{"of":"the node"}')
    const digest = origin.addManifest({ mediaType: MANIFEST, body }, 'v1')
    const start = (entry: object): Promise<PolyglotShoal> =>
      PolyglotShoal.start({
        registry: REGISTRY,
        entry: { host: origin.url, ...entry },
        repositories: [APP],
        config: { upstream: { retries: 0 } },
        directory: directory.path,
      })
    {
      await using shoal = await start({ visibility: 'shared', username: 'node', password_file: secrets.file })
      for (const asked of [resource, 'manifests/v1', `manifests/${digest}`])
        assert.equal((await shoal.ask('ns', { repository: APP, resource: asked })).status, 200)
      await stored(shoal, { repository: APP, resource })
    }
    await using shoal = await start({ visibility: 'private' })
    const alice = bearer(origin.auth.tokenFor('alice', APP))
    for (const isDown of [false, true]) {
      if (isDown) {
        assert.equal((await shoal.ask('ns', { repository: APP, resource, headers: alice })).headers['x-cache'], 'hit')
        await origin.close()
      }
      for (const asked of [resource, 'manifests/v1', `manifests/${digest}`, `blobs/${digest}`]) {
        for (const dialect of DIALECTS) {
          const answer = await shoal.ask(dialect, { repository: APP, resource: asked })
          assertRefused(answer, bytes, `${asked} by ${dialect}`, isDown ? [502, 503] : [401])
          assert.ok(!answer.body.includes(body))
        }
      }
    }
    assert.ok((await shoal.ask('ns', { repository: APP, resource, headers: alice })).body.equals(bytes))
  })

  test('what came from a registry that is no longer in the table is refused like any other unknown name', async () => {
    await using origin = await startOrigin()
    await using directory = await temporaryDirectory()
    const { bytes, resource } = addBlob(origin)
    const start = (registries: object): ReturnType<typeof startShoal> =>
      startShoal({ directory: directory.path, config: { registries } as ConfigTables })
    const url = (mirror: string): string => `${mirror}/v2/${OPEN}/${resource}?ns=${REGISTRY}`
    {
      await using shoal = await start({ [REGISTRY]: { host: origin.url } })
      const answer = await fetch(url(shoal.mirror))
      assert.equal(answer.status, 200)
      await answer.arrayBuffer()
      await until(async () => (await fetch(url(shoal.mirror), { method: 'HEAD' })).headers.get('x-cache') === 'hit')
    }
    await using shoal = await start({})
    for (const headers of [{}, { range: 'bytes=0-99' }, { 'if-none-match': '*' }] as Record<string, string>[]) {
      const answer = await fetch(url(shoal.mirror), { headers })
      assert.equal(answer.status, 403)
      assert.equal(answer.headers.get('x-dragonfly-error-type'), 'proxy')
      assert.ok(!Buffer.from(await answer.arrayBuffer()).includes(bytes.subarray(0, 10)))
    }
  })
})

describe('behind a mirror', () => {
  /** A cache that checks nothing: whoever asks gets it. */
  async function startOpenMirror(origin: ScriptedOrigin): Promise<ScriptedOrigin> {
    return startScriptedOrigin({ blobs: origin.blobs, manifests: origin.manifests })
  }

  for (const visibility of ['auto', 'private']) {
    test(`that does not answer for rights (auth_through = false), the registry’s word comes first: visibility ${visibility}`, async () => {
      await using origin = await startOrigin()
      const blobs = [addBlob(origin), addBlob(origin, 12 * 1024 * KIB)]
      const body = Buffer.from('{"of":"alice"}')
      const digest = origin.addManifest({ mediaType: MANIFEST, body }, 'v1')
      await using mirror = await startOpenMirror(origin)
      const alice = bearer(origin.auth.tokenFor('alice', APP))
      await using shoal = await startPolyglot(origin, {
        visibility,
        mirrors: [{ host: mirror.url, auth_through: false }],
      })
      const resources = [...blobs.map(({ resource }) => resource), 'manifests/v1', `manifests/${digest}`]
      // Before anybody has read anything, after alice has read the first blob, and when she has read them all.
      for (let read = 0; read <= resources.length; read += 1) {
        for (const headers of Object.values(strangers(origin))) {
          for (const resource of resources) {
            for (const dialect of ['ns', 'default'] as const) {
              const answer = await shoal.ask(dialect, { repository: APP, resource, headers })
              assertRefused(answer, blobs[0]!.bytes, `${resource}, ${JSON.stringify(headers)}, ${read} read`, [401])
              assert.ok(!answer.body.includes(body))
            }
          }
        }
        const resource = resources[read]
        if (resource === undefined) continue
        assert.equal((await shoal.ask('ns', { repository: APP, resource, headers: alice })).status, 200)
      }
      assert.ok(
        mirror.requests.some(
          ({ headers, kind }) => kind === 'blob' && headers.authorization === alice['authorization'],
        ),
        'what the registry let alice read comes from the mirror too',
      )
      const wrong = mirror.requests.filter(({ headers }) => headers.authorization === 'Bearer nonsense')
      assert.deepEqual(wrong, [], 'the mirror is shown nobody’s credential that the registry has not accepted')
    })
  }

  test('that answers for rights itself, its refusals are not the last word, and what it gives is for those it gave it to', async () => {
    await using origin = await startOrigin()
    const { bytes, resource } = addBlob(origin)
    // Has rights of its own, and knows the same tokens.
    await using mirror = await startScriptedOrigin({
      blobs: origin.blobs,
      auth: { kind: 'token', users: USERS, mayPull, realm: `${origin.url}/token` },
    })
    const token = origin.auth.tokenFor('alice', APP)
    mirror.auth.check = (_url, repository, authorization) => origin.auth.check(origin.url, repository, authorization)
    await using shoal = await startPolyglot(origin, { mirrors: [{ host: mirror.url }] })
    const asked = { repository: APP, resource, headers: bearer(token) }
    assert.ok((await shoal.ask('ns', asked)).body.equals(bytes))
    assert.equal(mirror.count('blob') > 0, true)
    for (const dialect of DIALECTS)
      for (const headers of Object.values(strangers(origin)))
        assertRefused(await shoal.ask(dialect, { ...asked, headers }), bytes, dialect, [401])
  })

  test('that stands for every name (*), a right to one name is none to another', async () => {
    await using origin = await startOrigin()
    const { bytes, resource } = addBlob(origin)
    await using shoal = await startPolyglot(origin, {}, { registries: { '*': { host: origin.url } } })
    const headers = bearer(origin.auth.tokenFor('alice', APP))
    const ask = (ns: string, more: Record<string, string>): Promise<Fetched> =>
      shoal.send({ path: `/v2/${APP}/${resource}?ns=${ns}`, headers: more })
    assert.equal((await ask('one.test', headers)).status, 200)
    assert.ok((await ask('one.test', headers)).body.equals(bytes))
    await origin.close()
    assertRefused(await ask('one.test', {}), bytes, 'nobody', [503])
    assertRefused(await ask('two.test', headers), bytes, 'another name', [503])
    assertRefused(await ask(REGISTRY, headers), bytes, 'the default', [503])
  })
})

test('a revoked credential reads on for five minutes at most, by every route and whatever was asked in between', async () => {
  const clock = new TestClock()
  // What is watched for a hang is given its time.
  clock.sleep = (ms, sleeping) => systemClock.sleep(ms, sleeping)
  await using origin = await startOrigin({ tokenSeconds: 3600 })
  origin.auth.now = () => clock.now()
  const entry = { host: origin.url, visibility: 'auto', mirrors: [], tls: { ca: [], clients: [], skipVerify: false } }
  const options: OriginTableOptions = {
    registries: { 'registry.test': entry as OriginTableOptions['registries'][string] },
    origins: {},
    allowAny: false,
    allowPrivate: [],
    certsD: '',
    dockerConfig: '',
    credentialPlugins: [],
    connectTimeoutMs: 2_000,
    idleTimeoutMs: 2_000,
    retries: 0,
    maxConnections: 8,
  }
  await using table = await OriginTable.open(testDeps(clock), options)
  await using mirror = await openMirror({ clock })
  mirror.rig.sources.origin = name => table.get(name)
  mirror.rig.sources.forBlob = ({ registry }) => table.sources(registry)
  const { bytes, digest, resource } = addBlob(origin)
  const body = Buffer.from('{"of":"alice"}')
  origin.addManifest({ mediaType: MANIFEST, body }, 'v1')
  const headers = bearer(origin.auth.tokenFor('alice', APP))
  const ask = (what: string, more: Record<string, string> = {}): Promise<Fetched> =>
    mirror.fetch(`/v2/${APP}/${what}`, { headers: { ...headers, ...more } })
  const url = (what: string): string => `/v2/${APP}/${what}`
  assert.ok((await ask(resource)).body.equals(bytes))
  assert.equal((await ask('manifests/v1')).status, 200)
  await until(() => mirror.rig.store.find(digest as never)?.state === 'complete')
  origin.auth.revokeTokens()
  for (let minute = 1; minute < 5; minute += 1) {
    clock.time += 60_000
    // Reading does not make it last longer.
    assert.equal((await ask(resource, { range: 'bytes=0-9' })).status, 206, `minute ${minute}`)
  }
  clock.time += 60_000
  const last = [resource, 'manifests/v1', `blobs/${digest}`, `manifests/${digest}`]
  for (const what of last) assertRefused(await ask(what), bytes, what, [401, 404])
  assertRefused(await ask(resource, { range: 'bytes=0-9' }), bytes, 'a range', [401])
  await origin.close()
  assertRefused(await ask(resource), bytes, 'while the origin is down', [503])
  assertRefused(await mirror.fetch(url(resource)), bytes, 'and without any', [503])
})

test('what is public stays readable while the origin is down, however long, and a refusal ends it', async () => {
  const clock = new TestClock()
  await using mirror = await openMirror({ clock })
  const { origin } = mirror.rig
  origin.visibility = 'public'
  const bytes = bytesOf(generatedBlob(40 * KIB, 77))
  const digest = origin.add(bytes)
  const url = `/v2/library/test/blobs/${digest}`
  assert.ok((await mirror.fetch(url)).body.equals(bytes))
  await until(() => mirror.rig.store.find(digest)?.state === 'complete')
  origin.beforeAnswer = () => {
    throw new ShoalError('ERR_UPSTREAM_TRANSPORT', 'gone')
  }
  for (let hour = 0; hour < 30; hour += 1) {
    clock.time += 3600_000
    assert.ok((await mirror.fetch(url)).body.equals(bytes), `hour ${hour}`)
  }
  origin.beforeAnswer = () => {
    throw new ShoalError('ERR_UPSTREAM_AUTH', 'it is private now', { details: { status: 401 } })
  }
  clock.time += 60_000
  assertRefused(await mirror.fetch(url), bytes, 'refused', [401])
  origin.beforeAnswer = () => {
    throw new ShoalError('ERR_UPSTREAM_TRANSPORT', 'gone')
  }
  assertRefused(await mirror.fetch(url), bytes, 'for good', [503])
})

async function passwordFile(password: string): Promise<AsyncDisposable & { readonly file: string }> {
  const directory = await temporaryDirectory()
  const file = path.join(directory.path, 'password')
  await fs.writeFile(file, password, { mode: 0o600 })
  return { file, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() }
}

function assertNoneSent(requests: readonly SeenRequest[], secrets: readonly string[]): void {
  for (const { headers, url } of requests)
    for (const secret of secrets)
      assert.ok(headers.authorization?.startsWith(secret) !== true, `${url} carried ${secret}`)
}
