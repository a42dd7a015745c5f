import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Containerd, writeHosts } from '../support/containerd.ts'
import { DockerRegistry } from '../support/docker-registry.ts'
import { fixtureImage } from '../support/fixture-image.ts'
import { skipWithout, startShoal, temporaryDirectory } from '../support/processes.ts'

const skip = await skipWithout(['containerd', 'ctr', 'docker-registry', 'skopeo'], { root: true })

/** Nothing listens there: what the mirror does not serve fails. */
const NOBODY = 'http://127.0.0.1:1'

test(
  'containerd pulls through a hosts.toml that names the mirror: cold, warm, and with the registry gone',
  { skip },
  async () => {
    const image = await fixtureImage()
    await using registry = await DockerRegistry.start()
    await registry.push({ ...image, repository: 'fixtures/oci' })
    await using shoal = await startShoal({
      config: {
        // Short, so that the last pull needs a stale tag.
        manifests: { tag_ttl: '1ms' },
        registries: { 'registry.test': { host: registry.url } },
      },
    })
    await using hosts = await temporaryDirectory()
    await writeHosts(hosts.path, { registry: 'registry.test', server: NOBODY, mirror: shoal.mirror })
    await using containerd = await Containerd.start()
    const reference = `registry.test/fixtures/oci:${image.tag}`

    for (const namespace of ['cold', 'warm', 'gone']) {
      if (namespace === 'gone') await registry.stop()
      await containerd.pull({ reference, hosts: hosts.path, namespace })
      assert.deepEqual(await containerd.contents(namespace), image.digests, namespace)
    }
  },
)

test('containerd falls back to the registry when the mirror is not there', { skip }, async () => {
  const image = await fixtureImage()
  await using registry = await DockerRegistry.start()
  await registry.push({ ...image, repository: 'fixtures/oci' })
  await using hosts = await temporaryDirectory()
  await writeHosts(hosts.path, { registry: 'registry.test', server: registry.url, mirror: NOBODY })
  await using containerd = await Containerd.start()

  const reference = `registry.test/fixtures/oci:${image.tag}`
  await containerd.pull({ reference, hosts: hosts.path, namespace: 'fallback' })
  assert.deepEqual(await containerd.contents('fallback'), image.digests)
})
