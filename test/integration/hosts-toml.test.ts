import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs/promises'
import net from 'node:net'
import path from 'node:path'
import { test } from 'node:test'
import { Containerd, writeHosts } from '../support/containerd.ts'
import { DockerRegistry, type DockerRegistryOptions } from '../support/docker-registry.ts'
import { fixtureImage } from '../support/fixture-image.ts'
import { freePort, skipWithout, startShoal, temporaryDirectory } from '../support/processes.ts'
import { metricOf, mirrorsOf } from '../support/shoal-command.ts'
import { projectRoot } from '../support/tools.ts'
import { until } from '../support/until.ts'

const skip = await skipWithout(['containerd', 'ctr', 'docker-registry', 'htpasswd', 'skopeo'], { root: true })

/** Nothing listens there. */
const NOBODY = 'http://127.0.0.1:1'
const NODE = { username: 'node', password: 'what-only-the-node-knows' }
const image = await fixtureImage()
const blobs = [image.config, ...image.layers].map(({ digest }) => digest).toSorted()

async function startRegistry(repository: string, options: DockerRegistryOptions = {}): Promise<DockerRegistry> {
  const registry = await DockerRegistry.start({ accessLog: true, ...options })
  await registry.push({ ...image, repository })
  return registry
}

/** The digests of the blobs that the registry sent since it was started, in order, one for each time. */
async function blobsSentBy(registry: DockerRegistry): Promise<string[]> {
  const asked = await registry.requests()
  return asked
    .map(line => /^GET \/v2\/[^ ]+\/blobs\/(sha256:[0-9a-f]+)\S* 20[06]$/.exec(line)?.[1])
    .filter(digest => digest !== undefined)
    .toSorted()
}

let pulls = 0

/** A cold pull by `ctr images pull --hosts-dir`, all of whose content is there afterwards. */
async function pull(containerd: Containerd, reference: string, hosts: string): Promise<void> {
  const namespace = `pull-${(pulls += 1)}`
  await containerd.pull({ reference, hosts, namespace })
  assert.deepEqual(await containerd.contents(namespace), image.digests, reference)
}

test('a hosts.toml whose first mirror is dead has containerd go on to Shoal, and no further', { skip }, async () => {
  await using containerd = await Containerd.start()
  await using registry = await startRegistry('fixtures/oci')
  await using shoal = await startShoal({ config: { registries: { 'registry.test': { host: registry.url } } } })
  await using hosts = await temporaryDirectory()
  await writeHosts(hosts.path, { registry: 'registry.test', server: registry.url, mirror: [NOBODY, shoal.mirror] })
  const reference = `registry.test/fixtures/oci:${image.tag}`

  await pull(containerd, reference, hosts.path)
  assert.deepEqual(await blobsSentBy(registry), blobs)
  const served = (): Promise<number> => metricOf(shoal, 'shoal_http_requests_total', { route: 'blob', status: '200' })
  await until(async () => (await served()) === blobs.length)
  await pull(containerd, reference, hosts.path)
  assert.deepEqual(await blobsSentBy(registry), blobs)
  await until(async () => (await served()) === 2 * blobs.length)
})

test('a dead mirror in certs.d costs Shoal one attempt, and is not touched by the next pull', { skip }, async () => {
  await using containerd = await Containerd.start()
  await using registry = await startRegistry('fixtures/oci')
  const dead = await freePort()
  await using certs = await temporaryDirectory()
  // The registry itself is not there either: what is pulled comes from the second mirror.
  await writeHosts(certs.path, {
    registry: 'registry.test',
    server: NOBODY,
    mirror: [`http://127.0.0.1:${dead}`, registry.url],
    more: ['  failure_limit = 1', '  health_check_interval = "1h"'],
  })
  await using shoal = await startShoal({ config: { manifests: { tag_ttl: '0' }, upstream: { certs_d: certs.path } } })
  await using hosts = await temporaryDirectory()
  await writeHosts(hosts.path, { registry: 'registry.test', server: NOBODY, mirror: shoal.mirror })
  const reference = `registry.test/fixtures/oci:${image.tag}`

  await pull(containerd, reference, hosts.path)
  const [first, second] = await mirrorsOf(shoal, 'registry.test')
  assert.deepEqual([first?.host, first?.status, first?.failures], [`127.0.0.1:${dead}`, 'down', 1])
  assert.equal(first?.requests, 1)
  assert.deepEqual([second?.host, second?.status, second?.failures], [registry.host, 'healthy', 0])
  const size = [image.config, ...image.layers].reduce((sum, blob) => sum + blob.size, 0)
  assert.equal(second?.bytes, size)

  // It would answer now, but it has said that it is down, and nobody pings it for an hour.
  let touched = 0
  const server = net.createServer(socket => {
    touched += 1
    socket.destroy()
  })
  server.listen(dead, '127.0.0.1')
  await once(server, 'listening')
  try {
    const before = (await registry.requests()).length
    await pull(containerd, reference, hosts.path)
    assert.ok((await registry.requests()).length > before, 'the tag is asked for again')
    assert.equal(touched, 0)
    assert.equal((await mirrorsOf(shoal, 'registry.test'))[0]?.requests, 1)
  } finally {
    server.close()
  }
  assert.deepEqual(await blobsSentBy(registry), blobs)
})

test(
  'whatever registry an image names, five lines take it from the internal one, with the credentials of the node',
  { skip },
  async () => {
    await using containerd = await Containerd.start()
    await using registry = await startRegistry('app', { credentials: NODE })
    const example = await fs.readFile(path.join(projectRoot, 'config', 'examples', 'internal-registry.toml'), 'utf8')
    const config = example.replace('http://registry.internal:5000', registry.url)
    assert.notEqual(config, example)
    await using shoal = await startShoal({ config, env: { REGISTRY_PASSWORD: NODE.password } })
    await using hosts = await temporaryDirectory()
    // What `registry.mirrors."*"` is to the CRI plugin.
    await writeHosts(hosts.path, { registry: '_default', server: NOBODY, mirror: shoal.mirror })

    await pull(containerd, `any.example/app:${image.tag}`, hosts.path)
    assert.deepEqual(await blobsSentBy(registry), blobs)
    for (const name of ['other.example', 'docker.io']) {
      await pull(containerd, `${name}/app:${image.tag}`, hosts.path)
      // The bytes are here already; that this place may be read too has to be asked once.
      assert.deepEqual(await blobsSentBy(registry), blobs)
    }
    const asked = await registry.requests()
    for (const name of ['any.example', 'other.example', 'docker.io']) {
      assert.ok(
        asked.some(line => line.includes(`?ns=${name} `)),
        name,
      )
    }
    await shoal.stop()
    for (const secret of [NODE.password, Buffer.from(`${NODE.username}:${NODE.password}`).toString('base64')]) {
      assert.deepEqual(
        shoal.lines.filter(line => line.includes(secret)),
        [],
      )
    }
  },
)

test("containerd's _default in certs.d sends every name that has no entry to one mirror", { skip }, async () => {
  await using containerd = await Containerd.start()
  await using registry = await startRegistry('app')
  await using certs = await temporaryDirectory()
  await writeHosts(certs.path, { registry: '_default', server: NOBODY, mirror: [NOBODY, registry.url] })
  await using shoal = await startShoal({ config: { upstream: { certs_d: certs.path } } })
  await using hosts = await temporaryDirectory()
  await writeHosts(hosts.path, { registry: '_default', server: NOBODY, mirror: shoal.mirror })

  for (const name of ['any.example', 'other.example', 'docker.io']) {
    await pull(containerd, `${name}/app:${image.tag}`, hosts.path)
  }
  assert.deepEqual(await blobsSentBy(registry), blobs)
})
