import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DockerRegistry } from '../support/docker-registry.ts'
import { fixtureImage, sha256Of } from '../support/fixture-image.ts'
import { skipWithout, startShoal, type ShoalProcess } from '../support/processes.ts'
import { until } from '../support/until.ts'

const skip = await skipWithout(['docker-registry', 'skopeo'])

const REPOSITORY = 'fixtures/oci'
const image = await fixtureImage()

interface Answer {
  readonly status: number
  readonly cache: string | null
  readonly digest: string
  readonly ms: number
}

async function get(shoal: ShoalProcess, resource: string, method = 'GET'): Promise<Answer> {
  const began = performance.now()
  const response = await fetch(`${shoal.mirror}/v2/${REPOSITORY}/${resource}`, {
    method,
    headers: { accept: image.manifest.mediaType },
  })
  const digest = sha256Of(new Uint8Array(await response.arrayBuffer()))
  return { status: response.status, cache: response.headers.get('x-cache'), digest, ms: performance.now() - began }
}

test(
  'while docker-registry is stopped, what is there is served, the rest is a 503 before a client gives up, and then all is as ever',
  { skip },
  async () => {
    await using registry = await DockerRegistry.start()
    await registry.push({ ...image, repository: REPOSITORY })
    await using shoal = await startShoal({
      config: {
        mirror: { default_registry: 'registry.test' },
        registries: { 'registry.test': { host: registry.url, visibility: 'public' } },
      },
    })
    const [known, unknown] = [image.layers[0]!.digest, image.layers[1]!.digest]
    assert.equal((await get(shoal, `manifests/${image.tag}`)).digest, image.manifest.digest)
    assert.equal((await get(shoal, `blobs/${known}`)).digest, known)
    await until(async () => (await get(shoal, `blobs/${known}`, 'HEAD')).cache === 'hit')

    process.kill(registry.pid, 'SIGSTOP')
    try {
      for (const resource of [`blobs/${unknown}`, 'manifests/another']) {
        const { ms, status } = await get(shoal, resource)
        assert.equal(status, 503, resource)
        assert.ok(ms < 4_000, `${resource}: ${ms} ms`)
      }
      for (const [resource, digest] of [
        [`blobs/${known}`, known],
        [`manifests/${image.tag}`, image.manifest.digest],
      ] as const) {
        const answer = await get(shoal, resource)
        assert.deepEqual([answer.status, answer.digest], [200, digest], resource)
        assert.ok(answer.ms < 4_000, `${resource}: ${answer.ms} ms`)
      }
      assert.ok(shoal.records.some(({ msg }) => msg.startsWith('registry hangs')))
    } finally {
      process.kill(registry.pid, 'SIGCONT')
    }

    for (const [resource, digest] of [
      [`blobs/${unknown}`, unknown],
      [`blobs/${known}`, known],
      [`manifests/${image.tag}`, image.manifest.digest],
    ] as const) {
      const answer = await get(shoal, resource)
      assert.deepEqual([answer.status, answer.digest], [200, digest], resource)
    }
  },
)
