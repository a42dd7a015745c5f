import assert from 'node:assert/strict'
import path from 'node:path'
import { test } from 'node:test'
import { DockerRegistry } from '../support/docker-registry.ts'
import { digestsInLayout, fixtureImage } from '../support/fixture-image.ts'
import { skipWithout, startShoal, temporaryDirectory } from '../support/processes.ts'
import { copyImage } from '../support/skopeo.ts'

const skip = await skipWithout(['docker-registry', 'skopeo'])

test('skopeo copies an image from the mirror: cold, warm, and with the registry gone', { skip }, async () => {
  const image = await fixtureImage()
  await using registry = await DockerRegistry.start()
  await registry.push({ ...image, repository: 'fixtures/oci' })
  await using shoal = await startShoal({
    config: {
      mirror: { default_registry: 'registry.test' },
      // Short, so that the last copy needs a stale tag.
      manifests: { tag_ttl: '1ms' },
      registries: { 'registry.test': { host: registry.url } },
    },
  })
  await using directory = await temporaryDirectory()

  for (const state of ['cold', 'warm', 'gone']) {
    if (state === 'gone') await registry.stop()
    const layout = path.join(directory.path, state)
    await copyImage({
      from: `docker://${shoal.mirrorHost}/fixtures/oci:${image.tag}`,
      to: `oci:${layout}:${image.tag}`,
    })
    assert.deepEqual(await digestsInLayout(layout), image.digests, state)
  }
})
