import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { describe, test } from 'node:test'
import { ProxyAgent, request } from 'undici'
import { blobUrl } from '../support/client.ts'
import { DockerRegistry, type DockerRegistryOptions } from '../support/docker-registry.ts'
import { digestsInLayout, fixtureImage, sha256Of } from '../support/fixture-image.ts'
import type { Credentials } from '../support/htpasswd.ts'
import { podmanPull } from '../support/podman.ts'
import { skipWithout, startShoal, temporaryDirectory, type ShoalProcess } from '../support/processes.ts'
import { metricOf, runShoal } from '../support/shoal-command.ts'
import { copyImage } from '../support/skopeo.ts'
import { createTestCa } from '../support/test-ca.ts'
import { until } from '../support/until.ts'

/** Go's clients use no proxy for loopback addresses. This name is never looked up: only Shoal's table knows where it is. */
const NAME = 'registry.test'
const REPOSITORY = 'fixtures/oci'
const OWNER = { username: 'owner', password: 'what-the-owner-knows' }
const image = await fixtureImage()
const blobs = [image.config, ...image.layers].map(({ digest }) => digest).toSorted()
const reference = `${NAME}/${REPOSITORY}:${image.tag}`

interface Pull {
  readonly proxy: string
  readonly reference: string
  readonly certificates?: string
  readonly credentials?: Credentials
}

interface Client {
  readonly name: string
  readonly skip: string | false
  /** Pulls into nothing, so that every blob is asked for. Throws with what the client said. */
  readonly pull: (options: Pull) => Promise<void>
}

const PODMAN: Client = {
  name: 'podman',
  skip: await skipWithout(['docker-registry', 'htpasswd', 'openssl', 'podman', 'skopeo'], { root: true }),
  pull: async options => assert.equal(await podmanPull(options), image.config.digest),
}

const SKOPEO: Client = {
  name: 'skopeo',
  skip: await skipWithout(['docker-registry', 'htpasswd', 'openssl', 'skopeo']),
  pull: async ({ certificates, credentials, proxy, reference: from }) => {
    await using directory = await temporaryDirectory()
    await copyImage({
      from: `docker://${from}`,
      to: `oci:${directory.path}:${image.tag}`,
      proxy,
      ...(certificates === undefined ? {} : { fromCertificates: certificates }),
      ...(credentials === undefined ? {} : { fromCredentials: credentials }),
    })
    assert.deepEqual(await digestsInLayout(directory.path), image.digests)
  },
}

/** A registry with the fixture in it; `https`: under a certificate for registry.test of an authority of its own. */
async function startRegistry(options: { https: boolean; credentials?: Credentials }) {
  await using undone = new AsyncDisposables()
  const ca = undone.use(await createTestCa())
  const leaf = await ca.issue([NAME, '127.0.0.1'])
  const settings: DockerRegistryOptions = {
    accessLog: true,
    ...(options.https ? { tls: { certificate: leaf.certFile, key: leaf.keyFile } } : {}),
    ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
  }
  const registry = undone.use(await DockerRegistry.start(settings))
  await registry.push({ ...image, repository: REPOSITORY })
  const certificates = undone.use(await temporaryDirectory())
  await fs.copyFile(ca.caFile, path.join(certificates.path, 'ca.crt'))
  const pushed = (await registry.requests()).length
  const owned = undone.move()
  return {
    /** As Shoal's table has it. */
    entry: { host: registry.url, ...(options.https ? { tls: { ca: ca.caFile } } : {}) },
    /** For clients that are to trust it. */
    certificates: certificates.path,
    /** The digests of the blobs that were sent, in order, one for each time. */
    blobsSent: async (): Promise<string[]> => {
      const asked = (await registry.requests()).slice(pushed)
      return asked
        .map(line => /^GET \/v2\/fixtures\/oci\/blobs\/(\S+) 20[06]$/.exec(line)?.[1])
        .filter(digest => digest !== undefined)
        .toSorted()
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  }
}

/** A daemon that opens tunnels to `intercept` with certificates of its own authority, which `certificates` holds. */
async function startIntercepting(entry: object, { intercept = NAME, rules = [] as readonly object[] } = {}) {
  await using undone = new AsyncDisposables()
  const { path: directory } = undone.use(await temporaryDirectory('shoal-state'))
  const { path: certificates } = undone.use(await temporaryDirectory())
  const [authority = ''] = (
    await runShoal(['proxy-ca', 'init', '--set', `state.path=${path.join(directory, 'state')}`])
  ).split('\n')
  // Nothing but the certificate: a directory with a key in it would be taken for a client's certificate.
  await fs.copyFile(authority, path.join(certificates, 'ca.crt'))
  const shoal = undone.use(
    await startShoal({
      directory,
      config: { proxy: { intercept: [intercept], rules }, registries: { [NAME]: entry } },
    }),
  )
  const owned = undone.move()
  return {
    shoal,
    certificates,
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  }
}

/** What a function has opened, in case that it fails half-way. Closed in reverse. */
class AsyncDisposables implements AsyncDisposable {
  #all: AsyncDisposable[] = []

  use<T extends AsyncDisposable>(resource: T): T {
    this.#all.push(resource)
    return resource
  }

  move(): AsyncDisposables {
    const moved = new AsyncDisposables()
    moved.#all = this.#all
    this.#all = []
    return moved
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const resource of this.#all.reverse()) await resource[Symbol.asyncDispose]()
  }
}

function proxied(shoal: ShoalProcess, outcome: string): Promise<number> {
  return metricOf(shoal, 'shoal_proxy_requests_total', { outcome })
}

/** Resolves when every blob is on disk: the last bytes reach a client before they get there. */
async function stored(shoal: ShoalProcess, headers: Record<string, string> = {}): Promise<void> {
  for (const digest of blobs) {
    const url = blobUrl({ mirror: shoal.mirror, digest, repository: REPOSITORY, registry: NAME })
    await until(async () => (await fetch(url, { method: 'HEAD', headers })).headers.get('x-cache') === 'hit')
  }
}

function basic({ password, username }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}

/** None of the lines that a daemon wrote holds any of the secrets. */
function assertDiscreet(shoal: ShoalProcess, ...secrets: readonly string[]): void {
  for (const secret of secrets) {
    const found = shoal.lines.filter(line => line.includes(secret))
    assert.deepEqual(found, [])
  }
}

for (const { name, pull, skip } of [PODMAN, SKOPEO]) {
  describe(`${name} with Shoal as its proxy`, { skip }, () => {
    test('of a plain http registry, the second pull takes its blobs from the cache', async () => {
      await using registry = await startRegistry({ https: false })
      await using shoal = await startShoal({
        config: {
          registries: { [NAME]: registry.entry },
          // Clients try https first, wherever that may lead.
          proxy: { rules: [{ match: '^https:', action: 'deny' }] },
        },
      })
      await pull({ proxy: shoal.mirror, reference })
      await stored(shoal)
      assert.deepEqual(await registry.blobsSent(), blobs)
      await pull({ proxy: shoal.mirror, reference })
      assert.deepEqual(await registry.blobsSent(), blobs)
      assert.equal(await proxied(shoal, 'cached'), 2 * blobs.length)
      assert.ok((await proxied(shoal, 'forwarded')) > 0)
      assert.equal(await proxied(shoal, 'tunnelled'), 0)
    })

    test("through a tunnel, everything is the registry's own: its certificate, and its blobs each time", async () => {
      await using registry = await startRegistry({ https: true })
      await using intercepting = await startIntercepting({ host: registry.entry.host }, { intercept: 'other.test' })
      const { shoal } = intercepting
      for (const sent of [blobs, [...blobs, ...blobs].toSorted()]) {
        await pull({ proxy: shoal.mirror, reference, certificates: registry.certificates })
        assert.deepEqual(await registry.blobsSent(), sent)
      }
      assert.ok((await proxied(shoal, 'tunnelled')) >= 2)
      for (const outcome of ['cached', 'forwarded', 'intercepted']) assert.equal(await proxied(shoal, outcome), 0)
      assert.equal(await metricOf(shoal, 'shoal_store_blobs'), 0)
      // Nobody vouches for it here.
      await using nobody = await temporaryDirectory()
      await assert.rejects(
        pull({ proxy: shoal.mirror, reference, certificates: nobody.path }),
        /certificate signed by unknown authority/,
      )
    })

    test('inside an intercepted tunnel, the second pull takes its blobs from the cache', async () => {
      await using registry = await startRegistry({ https: true })
      const rules = [{ match: '/v2/secret/', action: 'deny' }]
      await using intercepting = await startIntercepting(registry.entry, { rules })
      const { certificates, shoal } = intercepting
      await pull({ proxy: shoal.mirror, reference, certificates })
      await stored(shoal)
      assert.deepEqual(await registry.blobsSent(), blobs)
      await pull({ proxy: shoal.mirror, reference, certificates })
      assert.deepEqual(await registry.blobsSent(), blobs)
      assert.equal(await proxied(shoal, 'cached'), 2 * blobs.length)
      assert.ok((await proxied(shoal, 'intercepted')) >= 2)
      assert.equal(await proxied(shoal, 'tunnelled'), 0)
      const secret = `${NAME}/secret/app:${image.tag}`
      await assert.rejects(
        pull({ proxy: shoal.mirror, reference: secret, certificates }),
        /a rule of this proxy denies/,
      )
      // Who trusts the registry's authority only does not trust this.
      await assert.rejects(
        pull({ proxy: shoal.mirror, reference, certificates: registry.certificates }),
        /certificate signed by unknown authority/,
      )
      await until(async () => (await proxied(shoal, 'untrusted')) > 0)
    })

    test('inside an intercepted tunnel, a private blob in the cache is for its own readers only', async () => {
      await using registry = await startRegistry({ https: true, credentials: OWNER })
      await using intercepting = await startIntercepting(registry.entry)
      const { certificates, shoal } = intercepting
      await pull({ proxy: shoal.mirror, reference, certificates, credentials: OWNER })
      await stored(shoal, { authorization: basic(OWNER) })
      const sent = await registry.blobsSent()
      await pull({ proxy: shoal.mirror, reference, certificates, credentials: OWNER })
      assert.deepEqual(await registry.blobsSent(), sent)
      await assert.rejects(
        pull({ proxy: shoal.mirror, reference, certificates, credentials: { ...OWNER, password: 'guessed' } }),
        /unauthorized|authentication required/,
      )
      // Nor for somebody who knows the digest already.
      const ca = await fs.readFile(path.join(certificates, 'ca.crt'))
      const dispatcher = new ProxyAgent({ uri: shoal.mirror, requestTls: { ca } })
      for (const [authorization, status] of [
        [undefined, 401],
        [basic({ ...OWNER, password: 'guessed' }), 401],
        [basic(OWNER), 200],
      ] as const) {
        for (const digest of blobs) {
          const headers = authorization === undefined ? {} : { authorization }
          const answer = await request(`https://${NAME}/v2/${REPOSITORY}/blobs/${digest}`, { dispatcher, headers })
          const body = new Uint8Array(await answer.body.arrayBuffer())
          assert.equal(answer.statusCode, status, authorization)
          assert.equal(answer.headers['x-cache'], status === 200 ? 'hit' : undefined)
          assert.equal(sha256Of(body) === digest, status === 200)
        }
      }
      await dispatcher.close()
      await shoal.stop()
      assertDiscreet(shoal, OWNER.password, basic(OWNER).slice('Basic '.length))
    })
  })
}

// The rest is the business of the HTTP library that both share.
describe('skopeo with Shoal as its proxy, where not all is allowed', { skip: SKOPEO.skip }, () => {
  const { pull } = SKOPEO

  test('a proxy with a password is of use to those who know it only', async () => {
    await using registry = await startRegistry({ https: true })
    const [username, password] = ['node', 'p@ss/word:with%everything']
    await using shoal = await startShoal({
      config: {
        registries: { [NAME]: { host: registry.entry.host } },
        proxy: { username, password_file: 'env:PROXY_PASSWORD' },
      },
      env: { PROXY_PASSWORD: password },
    })
    const { certificates } = registry
    const proxyFor = (secret: string): string => `http://${username}:${encodeURIComponent(secret)}@${shoal.mirrorHost}`
    for (const proxy of [shoal.mirror, proxyFor('wrong')]) {
      await assert.rejects(pull({ proxy, reference, certificates }), /Proxy Authentication Required/)
    }
    assert.ok((await proxied(shoal, 'unauthorised')) >= 2)
    assert.equal(await proxied(shoal, 'tunnelled'), 0)
    await pull({ proxy: proxyFor(password), reference, certificates })
    assert.ok((await proxied(shoal, 'tunnelled')) > 0)
    await shoal.stop()
    assertDiscreet(shoal, password, encodeURIComponent(password), basic({ username, password }).slice('Basic '.length))
  })

  test('a proxy with a password asks for it without tunnels too', async () => {
    await using registry = await startRegistry({ https: false })
    await using shoal = await startShoal({
      config: {
        registries: { [NAME]: registry.entry },
        proxy: {
          username: 'node',
          password_file: 'env:PROXY_PASSWORD',
          rules: [{ match: '^https:', action: 'deny' }],
        },
      },
      env: { PROXY_PASSWORD: 'secret' },
    })
    await assert.rejects(pull({ proxy: shoal.mirror, reference }), /407|Proxy Authentication Required/)
    assert.equal(await proxied(shoal, 'forwarded'), 0)
    await pull({ proxy: `http://node:secret@${shoal.mirrorHost}`, reference })
    assert.equal(await proxied(shoal, 'cached'), blobs.length)
  })

  test('what a rule denies, and what nobody has named, is refused', async () => {
    await using registry = await startRegistry({ https: true })
    await using shoal = await startShoal({
      config: {
        registries: { [NAME]: { host: registry.entry.host } },
        proxy: { rules: [{ match: '^https://registry\\.test/', action: 'deny' }] },
      },
    })
    const { certificates } = registry
    await assert.rejects(pull({ proxy: shoal.mirror, reference, certificates }), /Forbidden/)
    assert.ok((await proxied(shoal, 'denied')) > 0)
    assert.equal(await proxied(shoal, 'refused'), 0)
    const unknown = `unknown.test/${REPOSITORY}:${image.tag}`
    await assert.rejects(pull({ proxy: shoal.mirror, reference: unknown, certificates }), /Forbidden/)
    assert.ok((await proxied(shoal, 'refused')) > 0)
    assert.equal(await proxied(shoal, 'tunnelled'), 0)
  })

  test("through a tunnel, a private registry's own login works, and nobody else's", async () => {
    await using registry = await startRegistry({ https: true, credentials: OWNER })
    await using shoal = await startShoal({ config: { registries: { [NAME]: { host: registry.entry.host } } } })
    const { certificates } = registry
    await pull({ proxy: shoal.mirror, reference, certificates, credentials: OWNER })
    await assert.rejects(
      pull({ proxy: shoal.mirror, reference, certificates, credentials: { ...OWNER, password: 'guessed' } }),
      /unauthorized|authentication required/,
    )
    await assert.rejects(pull({ proxy: shoal.mirror, reference, certificates }), /unauthorized|authentication required/)
  })
})
