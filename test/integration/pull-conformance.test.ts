import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { request, type Dispatcher } from 'undici'
import { fixtureImage, sha256Of, type FixtureDescriptor } from '../support/fixture-image.ts'
import { startShoal, type ShoalProcess } from '../support/shoal.ts'

// What the OCI distribution specification's conformance suite asks of a registry that only serves pulls, in our own words, against a mirror
// in front of an OCI layout: registries differ in what they offer (referrers, errors), a directory has all of it.

interface ImageManifest {
  readonly mediaType?: string
  readonly config: FixtureDescriptor
  readonly layers: readonly FixtureDescriptor[]
}

const UNKNOWN = `sha256:${'0'.repeat(64)}`
const REPOSITORY = 'conformance/repo1'
const INDEX = 'application/vnd.oci.image.index.v1+json'

const fixture = await fixtureImage()
let shoal: ShoalProcess

async function ask(path: string, method: Dispatcher.HttpMethod = 'GET', headers: Record<string, string> = {}) {
  const answer = await request(`${shoal.mirror}/v2/${path}`, { method, headers })
  const body = Buffer.from(await answer.body.arrayBuffer())
  return { status: answer.statusCode, headers: answer.headers, body }
}

function assertErrors(body: Buffer): void {
  const { errors } = JSON.parse(body.toString()) as { errors: { code: string }[] }
  assert.ok(errors.length > 0)
  for (const { code } of errors) assert.match(code, /^[A-Z_]+$/)
}

async function image(): Promise<{ digest: string; manifest: ImageManifest; body: Buffer }> {
  const { body } = await ask(`${REPOSITORY}/manifests/${fixture.tag}`)
  return { digest: sha256Of(body), manifest: JSON.parse(body.toString()) as ImageManifest, body }
}

describe('the pull side of the distribution specification', () => {
  before(async () => {
    shoal = await startShoal({
      config: {
        mirror: { default_registry: 'layout.test', listen: ['127.0.0.1:0'] },
        origins: { 'layout.test': { type: 'oci-layout', path: fixture.layout } },
      },
    })
  })
  after(() => shoal[Symbol.asyncDispose]())

  test('the base answers 200', async () => {
    assert.equal((await ask('')).status, 200)
  })

  test('a manifest by tag and by digest, GET and HEAD, is the same and hashes to its digest', async () => {
    const { digest, body } = await image()
    for (const reference of [fixture.tag, digest]) {
      const got = await ask(`${REPOSITORY}/manifests/${reference}`)
      assert.equal(got.status, 200)
      assert.ok(got.body.equals(body))
      assert.equal(got.headers['docker-content-digest'], digest)
      const { mediaType } = JSON.parse(got.body.toString()) as ImageManifest
      if (mediaType !== undefined) assert.equal(got.headers['content-type'], mediaType)
      const head = await ask(`${REPOSITORY}/manifests/${reference}`, 'HEAD')
      assert.equal(head.status, 200)
      assert.equal(head.headers['content-length'], String(body.length))
      assert.equal(head.headers['docker-content-digest'], digest)
      assert.equal(head.body.length, 0)
    }
  })

  test('every blob, GET and HEAD, has its length and hashes to its digest, whole and in parts', async () => {
    const { manifest } = await image()
    for (const { digest, size } of [manifest.config, ...manifest.layers]) {
      const head = await ask(`${REPOSITORY}/blobs/${digest}`, 'HEAD')
      assert.deepEqual([head.status, head.headers['content-length'], head.body.length], [200, String(size), 0])
      const got = await ask(`${REPOSITORY}/blobs/${digest}`)
      assert.equal(got.status, 200)
      assert.equal(got.body.length, size)
      assert.equal(sha256Of(got.body), digest)
      const end = Math.min(99, size - 1)
      const part = await ask(`${REPOSITORY}/blobs/${digest}`, 'GET', { range: `bytes=1-${end}` })
      assert.equal(part.status, 206)
      assert.equal(part.headers['content-range'], `bytes 1-${end}/${size}`)
      assert.ok(part.body.equals(got.body.subarray(1, end + 1)))
    }
  })

  test('what does not exist is 404, with errors in the body of a GET', async () => {
    for (const path of [
      `${REPOSITORY}/blobs/${UNKNOWN}`,
      `${REPOSITORY}/manifests/${UNKNOWN}`,
      `${REPOSITORY}/manifests/no-such-tag`,
      `${REPOSITORY}/manifests/.INVALID_MANIFEST_NAME`,
    ]) {
      const got = await ask(path)
      assert.equal(got.status, 404, path)
      assertErrors(got.body)
      assert.equal((await ask(path, 'HEAD')).status, 404, path)
    }
  })

  test('a digest in no known form is 400 or 404', async () => {
    for (const digest of ['sha256:totallywrong', 'sha256:', 'baz:abc', `sha256:${'0'.repeat(63)}`]) {
      for (const kind of ['blobs', 'manifests']) {
        const got = await ask(`${REPOSITORY}/${kind}/${digest}`)
        assert.ok(got.status === 400 || got.status === 404, `${kind}/${digest}: ${got.status}`)
        assertErrors(got.body)
      }
    }
  })

  test('tags are listed, a page at a time when asked so', async () => {
    const all = await ask(`${REPOSITORY}/tags/list`)
    assert.equal(all.status, 200)
    const { name, tags } = JSON.parse(all.body.toString()) as { name: string; tags: string[] }
    assert.equal(name, REPOSITORY)
    assert.ok(tags.includes(fixture.tag))
    const none = await ask(`${REPOSITORY}/tags/list?n=0`)
    assert.deepEqual((JSON.parse(none.body.toString()) as { tags: string[] }).tags, [])
    const page = await ask(`${REPOSITORY}/tags/list?n=1`)
    assert.deepEqual((JSON.parse(page.body.toString()) as { tags: string[] }).tags, tags.slice(0, 1))
    const after = await ask(`${REPOSITORY}/tags/list?last=${tags.at(-1) ?? ''}`)
    assert.deepEqual((JSON.parse(after.body.toString()) as { tags: string[] }).tags, [])
  })

  test('referrers of a manifest, also of one that nobody knows, are an index', async () => {
    const { digest } = await image()
    for (const subject of [digest, UNKNOWN]) {
      const got = await ask(`${REPOSITORY}/referrers/${subject}`)
      assert.equal(got.status, 200)
      assert.equal(got.headers['content-type'], INDEX)
      const index = JSON.parse(got.body.toString()) as {
        schemaVersion: number
        mediaType: string
        manifests: unknown[]
      }
      assert.deepEqual([index.schemaVersion, index.mediaType, index.manifests], [2, INDEX, []])
    }
  })
})
