import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { DockerRegistry, type DockerRegistryOptions } from '../support/docker-registry.ts'
import { fixtureImage, sha256Of } from '../support/fixture-image.ts'
import { skipWithout, startShoal, temporaryDirectory, type ShoalProcess } from '../support/processes.ts'
import { createTestCa } from '../support/test-ca.ts'
import { until } from '../support/until.ts'

const skip = await skipWithout(['docker-registry', 'skopeo'])
const skipAuth = await skipWithout(['docker-registry', 'skopeo', 'htpasswd'])
const skipTls = await skipWithout(['docker-registry', 'skopeo', 'openssl'])

const REPOSITORY = 'fixtures/oci'
const CREDENTIALS = { username: 'node', password: 'a-secret-of-the-node' }
const image = await fixtureImage()

async function startRegistry(options: DockerRegistryOptions = {}): Promise<DockerRegistry> {
  const registry = await DockerRegistry.start(options)
  await registry.push({ ...image, repository: REPOSITORY })
  return registry
}

function startMirror(registry: DockerRegistry, more: object = {}): Promise<ShoalProcess> {
  return startShoal({
    config: {
      mirror: { default_registry: 'registry.test' },
      registries: { 'registry.test': { host: registry.url, ...more } },
    },
  })
}

/** GET of something in the fixture's repository. */
function get(shoal: ShoalProcess, resource: string, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${shoal.mirror}/v2/${REPOSITORY}/${resource}`, { headers })
}

/** Resolves when a blob is on disk: its last bytes reach the client before they get there. */
async function stored(shoal: ShoalProcess, digest: string): Promise<void> {
  await until(async () => {
    const head = await fetch(`${shoal.mirror}/v2/${REPOSITORY}/blobs/${digest}`, { method: 'HEAD' })
    return head.headers.get('x-cache') === 'hit'
  })
}

async function digestOf(response: Response): Promise<string> {
  return sha256Of(new Uint8Array(await response.arrayBuffer()))
}

function basic({ username, password }: { username: string; password: string }): Record<string, string> {
  return { authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}` }
}

test(
  'what came from docker-registry once is served after it has gone, and what did not is a 503',
  { skip },
  async () => {
    await using registry = await startRegistry()
    await using shoal = await startMirror(registry)
    const [asked, notAsked] = [image.layers[0]!, image.layers[1]!]

    for (const cache of ['miss', 'hit']) {
      if (cache === 'hit') await registry.stop()
      for (const reference of [image.tag, image.manifest.digest]) {
        const manifest = await get(shoal, `manifests/${reference}`, { accept: image.manifest.mediaType })
        assert.equal(manifest.status, 200)
        assert.equal(manifest.headers.get('docker-content-digest'), image.manifest.digest)
        assert.equal(manifest.headers.get('content-type'), image.manifest.mediaType)
        assert.equal(await digestOf(manifest), image.manifest.digest)
      }
      for (const { digest, size } of [image.config, asked]) {
        const blob = await get(shoal, `blobs/${digest}`)
        assert.equal(blob.status, 200)
        assert.equal(blob.headers.get('x-cache'), cache)
        assert.equal(blob.headers.get('content-length'), String(size))
        assert.equal(await digestOf(blob), digest)
        await stored(shoal, digest)
      }
    }

    const missing = await get(shoal, `blobs/${notAsked.digest}`)
    assert.equal(missing.status, 503)
    assert.ok(missing.headers.has('retry-after'))
    assert.match(await missing.text(), /"errors"/)
  },
)

test('a range, a HEAD and the list of tags come through from docker-registry', { skip }, async () => {
  await using registry = await startRegistry()
  await using shoal = await startMirror(registry)
  const { digest, size } = image.layers[0]!
  const bytes = await fs.readFile(path.join(image.layout, 'blobs', ...digest.split(':')))

  for (const [range, start, end] of [
    ['bytes=1000000-1000999', 1_000_000, 1_001_000],
    ['bytes=-10', size - 10, size],
    [`bytes=${size - 1}-`, size - 1, size],
  ] as const) {
    const part = await get(shoal, `blobs/${digest}`, { range })
    assert.equal(part.status, 206, range)
    assert.equal(part.headers.get('content-range'), `bytes ${start}-${end - 1}/${size}`)
    assert.deepEqual(Buffer.from(await part.arrayBuffer()), bytes.subarray(start, end))
  }
  const head = await fetch(`${shoal.mirror}/v2/${REPOSITORY}/blobs/${digest}`, { method: 'HEAD' })
  assert.equal(head.status, 200)
  assert.equal(head.headers.get('content-length'), String(size))
  assert.deepEqual(await (await get(shoal, 'tags/list')).json(), { name: REPOSITORY, tags: [image.tag] })
})

test('what docker-registry does not know is a 404 in its own words', { skip }, async () => {
  await using registry = await startRegistry()
  await using shoal = await startMirror(registry)

  const blob = await get(shoal, `blobs/sha256:${'0'.repeat(64)}`)
  assert.equal(blob.status, 404)
  assert.match(await blob.text(), /"BLOB_UNKNOWN"/)
  const manifest = await get(shoal, 'manifests/no-such-tag')
  assert.equal(manifest.status, 404)
  assert.match(await manifest.text(), /"MANIFEST_UNKNOWN"/)
})

test(
  "the node's credentials from a password file open a registry for every local client",
  { skip: skipAuth },
  async () => {
    await using registry = await startRegistry({ credentials: CREDENTIALS })
    await using secrets = await temporaryDirectory()
    const file = path.join(secrets.path, 'password')
    await fs.writeFile(file, `${CREDENTIALS.password}\n`, { mode: 0o600 })
    await using shoal = await startMirror(registry, { username: CREDENTIALS.username, password_file: file })

    const manifest = await get(shoal, `manifests/${image.tag}`, { accept: image.manifest.mediaType })
    assert.equal(await digestOf(manifest), image.manifest.digest)
    const { digest } = image.layers[0]!
    for (const cache of ['miss', 'hit']) {
      const blob = await get(shoal, `blobs/${digest}`)
      assert.equal(blob.headers.get('x-cache'), cache)
      assert.equal(await digestOf(blob), digest)
      await stored(shoal, digest)
    }
    await shoal.stop()
    const [header = ''] = Object.values(basic(CREDENTIALS))
    for (const secret of [CREDENTIALS.password, header.split(' ')[1]!]) {
      assert.deepEqual(
        shoal.lines.filter(line => line.includes(secret)),
        [],
      )
    }
  },
)

test("without credentials the registry's refusal and its challenge reach the client", { skip: skipAuth }, async () => {
  await using registry = await startRegistry({ credentials: CREDENTIALS })
  await using shoal = await startMirror(registry)

  for (const resource of [`manifests/${image.tag}`, `blobs/${image.config.digest}`]) {
    const refused = await get(shoal, resource)
    assert.equal(refused.status, 401, resource)
    assert.equal(refused.headers.get('www-authenticate'), 'Basic realm="test"')
    assert.match(await refused.text(), /"UNAUTHORIZED"/)
  }
})

test("a client's own credentials open a blob for that client only", { skip: skipAuth }, async () => {
  await using registry = await startRegistry({ credentials: CREDENTIALS })
  await using shoal = await startMirror(registry)
  const resource = `blobs/${image.config.digest}`

  const allowed = await get(shoal, resource, basic(CREDENTIALS))
  assert.equal(await digestOf(allowed), image.config.digest)
  assert.equal((await get(shoal, resource)).status, 401)
  assert.equal((await get(shoal, resource, basic({ ...CREDENTIALS, password: 'wrong' }))).status, 401)
  const again = await get(shoal, resource, basic(CREDENTIALS))
  assert.equal(again.headers.get('x-cache'), 'hit')
  assert.equal(await digestOf(again), image.config.digest)
})

test(
  'a registry with a certificate of a private authority is trusted through registries.tls.ca only',
  { skip: skipTls },
  async () => {
    await using ca = await createTestCa()
    const leaf = await ca.issue(['127.0.0.1'])
    await using registry = await startRegistry({ tls: { certificate: leaf.certFile, key: leaf.keyFile } })

    await using trusting = await startMirror(registry, { tls: { ca: ca.caFile } })
    for (const { digest } of [image.config, ...image.layers]) {
      assert.equal(await digestOf(await get(trusting, `blobs/${digest}`)), digest)
    }
    await using strict = await startMirror(registry)
    const refused = await get(strict, `blobs/${image.config.digest}`)
    assert.equal(refused.status, 503)
    await using careless = await startMirror(registry, { tls: { skip_verify: true } })
    assert.equal(await digestOf(await get(careless, `blobs/${image.config.digest}`)), image.config.digest)
  },
)
