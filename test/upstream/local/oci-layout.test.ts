import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { Registry } from 'prom-client'
import {
  errorCode,
  MAX_LISTING_BYTES,
  parseReference,
  type Digest,
  type ErrorCode,
  type ListingRequest,
  type ManifestKey,
} from '../../../src/core/index.ts'
import { OciLayoutOrigin } from '../../../src/upstream/index.ts'
import { bytesOf, generatedBlob } from '../../support/generated-blob.ts'
import { addBlob, makeOciLayout, writeIndex, type MadeLayout } from '../../support/oci-layout-maker.ts'
import { collect, keyOf, metric, spelled, testDeps } from '../rig.ts'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'

let root = ''
let made = 0

before(async () => {
  root = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-layout-'))
})

after(() => fs.rm(root, { recursive: true, force: true }))

function newDirectory(): string {
  made += 1
  return path.join(root, String(made))
}

async function openSingle(
  layers: readonly number[] = [300_000, 10],
): Promise<{ layout: MadeLayout; origin: OciLayoutOrigin }> {
  const layout = await makeOciLayout(newDirectory(), { layers, tags: ['latest', 'v1', 'v2'] })
  return { layout, origin: await OciLayoutOrigin.open(testDeps(), { name: 'demo', path: layout.directory }) }
}

function manifestKey(reference: string, repository = 'any/name'): ManifestKey {
  return { registry: 'demo', repository, reference: parseReference(reference) }
}

function tagsOf(repository: string, query = ''): ListingRequest {
  return { registry: 'demo', repository, listing: { kind: 'tags' }, query }
}

function failsWith(code: ErrorCode, text = '') {
  return (error: unknown): boolean => errorCode(error) === code && spelled(error).includes(text)
}

test('a layout is every repository: tags, manifests and blobs', async () => {
  const { layout, origin } = await openSingle()
  const { body, digest, size } = layout.manifest
  for (const reference of ['latest', 'v2', digest]) {
    for (const repository of ['any/name', 'x']) {
      const manifest = await origin.getManifest(manifestKey(reference, repository))
      assert.deepEqual(manifest, { digest, mediaType: MANIFEST, size, body })
      assert.deepEqual(await origin.statManifest(manifestKey(reference, repository)), {
        digest,
        mediaType: MANIFEST,
        size,
      })
    }
  }
  for (const blob of [layout.config, ...layout.layers])
    assert.deepEqual(await origin.stat(keyOf(blob.digest)), { size: blob.size })
  assert.equal(await origin.getManifest(manifestKey('v3')), undefined)
  assert.equal(await origin.statManifest(manifestKey(`sha256:${'0'.repeat(64)}`)), undefined)
})

test('in a directory of layouts each repository is one', async () => {
  const directory = newDirectory()
  const one = await makeOciLayout(path.join(directory, 'team', 'one'), { layers: [5], seed: 1 })
  const two = await makeOciLayout(path.join(directory, 'two'), { layers: [6], seed: 2 })
  const origin = await OciLayoutOrigin.open(testDeps(), { name: 'demo', path: directory })
  assert.equal((await origin.getManifest(manifestKey('latest', 'team/one')))?.digest, one.manifest.digest)
  assert.equal((await origin.getManifest(manifestKey('latest', 'two')))?.digest, two.manifest.digest)
  assert.equal((await origin.stat(keyOf(one.layers[0]!.digest, 'team/one')))?.size, 5)
  for (const repository of ['two', 'team', 'three', 'team/one/blobs']) {
    assert.equal(await origin.stat(keyOf(one.layers[0]!.digest, repository)), undefined, repository)
  }
  assert.equal(await origin.getManifest(manifestKey('latest', 'three')), undefined)
  assert.equal((await origin.list(tagsOf('three'))).status, 404)
})

test('a name that leads out of the directory is refused', async () => {
  const directory = newDirectory()
  await makeOciLayout(path.join(directory, 'inside'), { layers: [5] })
  const { layout } = await openSingle()
  const origin = await OciLayoutOrigin.open(testDeps(), { name: 'demo', path: path.join(directory, 'inside', '..') })
  const outside = `../${path.basename(layout.directory)}`
  await assert.rejects(origin.stat(keyOf(layout.config.digest, outside)), failsWith('ERR_NAME_INVALID'))
  await assert.rejects(origin.getManifest(manifestKey('latest', outside)), failsWith('ERR_NAME_INVALID'))
})

test('a file shorter than promised is an error, when it is opened and while it is read', async () => {
  const { layout, origin } = await openSingle()
  const { digest, size } = layout.layers[0]!
  const file = path.join(layout.directory, 'blobs', ...digest.split(':'))
  const body = await origin.open(keyOf(digest), { start: 0, end: size })
  await fs.truncate(file, 100)
  await assert.rejects(collect(body), failsWith('ERR_UPSTREAM_BODY', file))
  await assert.rejects(origin.open(keyOf(digest), { start: 0, end: size }), failsWith('ERR_UPSTREAM_BODY', file))
  assert.equal((await collect(await origin.open(keyOf(digest), { start: 90, end: 100 }))).length, 10)
})

test('a file that has gone since it was asked for is an error', async () => {
  const { layout, origin } = await openSingle()
  const { digest, size } = layout.layers[0]!
  const body = await origin.open(keyOf(digest), { start: 0, end: size })
  await fs.rm(path.join(layout.directory, 'blobs', ...digest.split(':')))
  await assert.rejects(collect(body), failsWith('ERR_UPSTREAM_TRANSPORT'))
})

test('a directory in the place of a blob is no blob', async () => {
  const { layout, origin } = await openSingle()
  const digest = `sha256:${'d'.repeat(64)}`
  await fs.mkdir(path.join(layout.directory, 'blobs', ...digest.split(':')))
  assert.equal(await origin.stat(keyOf(digest)), undefined)
})

test('what the file system refuses is a failure, not an absence', async () => {
  const { layout, origin } = await openSingle()
  const digest = `sha256:${'e'.repeat(64)}`
  const file = path.join(layout.directory, 'blobs', ...digest.split(':'))
  await fs.symlink(file, file)
  await assert.rejects(origin.stat(keyOf(digest)), failsWith('ERR_UPSTREAM_TRANSPORT', 'ELOOP'))
  await assert.rejects(origin.getManifest(manifestKey(digest)), failsWith('ERR_UPSTREAM_TRANSPORT', file))
  const marker = path.join(layout.directory, 'oci-layout')
  await fs.rm(marker)
  await fs.symlink(marker, marker)
  await assert.rejects(origin.stat(keyOf(layout.config.digest)), failsWith('ERR_UPSTREAM_TRANSPORT', 'ELOOP'))
})

test('a layout that appears after the start is found', async () => {
  const directory = newDirectory()
  await fs.mkdir(directory)
  await using origin = await OciLayoutOrigin.open(testDeps(), { name: 'demo', path: directory })
  assert.equal(await origin.getManifest(manifestKey('latest', 'a/b')), undefined)
  const below = await makeOciLayout(path.join(directory, 'a', 'b'), { layers: [1], seed: 1 })
  assert.equal((await origin.getManifest(manifestKey('latest', 'a/b')))?.digest, below.manifest.digest)
  const whole = await makeOciLayout(directory, { layers: [1], seed: 2 })
  assert.equal((await origin.getManifest(manifestKey('latest', 'a/b')))?.digest, whole.manifest.digest)
})

test('an abort ends the reading of manifests with its reason', async () => {
  const { origin } = await openSingle()
  const reason = new Error('left')
  const controller = new AbortController()
  const reading = origin.getManifest(manifestKey('latest'), { signal: controller.signal })
  controller.abort(reason)
  await assert.rejects(reading, thrown => thrown === reason)
})

test('a changed index is read again', async () => {
  const { layout, origin } = await openSingle()
  const { digest, mediaType, size } = layout.manifest
  assert.ok((await origin.getManifest(manifestKey('v1'))) !== undefined)
  await writeIndex(layout.directory, [
    { mediaType, digest, size, annotations: { 'org.opencontainers.image.ref.name': 'new' } },
  ])
  assert.equal(await origin.getManifest(manifestKey('v1')), undefined)
  assert.equal((await origin.getManifest(manifestKey('new')))?.digest, digest)
})

test('a malformed index is an error that names the file', async () => {
  const { layout, origin } = await openSingle()
  const file = path.join(layout.directory, 'index.json')
  const texts = ['{"manifests":', '[]', '{}', '{"manifests":[{"digest":"sha256:x"}]}', '{"manifests":["x"]}']
  for (const text of texts) {
    await fs.writeFile(file, text)
    await assert.rejects(origin.getManifest(manifestKey('latest')), failsWith('ERR_UPSTREAM_BODY', file), text)
  }
  await fs.truncate(file, MAX_LISTING_BYTES + 1)
  await assert.rejects(origin.getManifest(manifestKey('latest')), failsWith('ERR_UPSTREAM_BODY', 'larger'))
  await fs.rm(file)
  await assert.rejects(origin.list(tagsOf('x')), failsWith('ERR_UPSTREAM_BODY', file))
})

test('a manifest that does not hash to its name is refused', async () => {
  const { layout, origin } = await openSingle()
  const { body, digest } = layout.manifest
  await fs.writeFile(path.join(layout.directory, 'blobs', ...digest.split(':')), `${body.toString()} `)
  await assert.rejects(origin.getManifest(manifestKey('latest')), failsWith('ERR_DIGEST_MISMATCH'))
})

test('a layer is no manifest, and a listed one that is too large is an error', async () => {
  const { layout, origin } = await openSingle([300_000, 5 * 2 ** 20])
  for (const { digest } of layout.layers) assert.equal(await origin.getManifest(manifestKey(digest)), undefined)
  const { digest, size } = layout.layers[1]!
  await writeIndex(layout.directory, [{ mediaType: MANIFEST, digest, size }])
  await assert.rejects(origin.getManifest(manifestKey(digest)), failsWith('ERR_LIMIT_EXCEEDED'))
})

test('a manifest below an index is found by digest although index.json does not list it', async () => {
  const { layout, origin } = await openSingle()
  const { digest, mediaType, size } = layout.manifest
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [{ mediaType, digest, size }] }))
  const added = await addBlob(layout.directory, 'application/vnd.oci.image.index.v1+json', index)
  await writeIndex(layout.directory, [{ ...added, annotations: { 'org.opencontainers.image.ref.name': 'multi' } }])
  assert.equal((await origin.getManifest(manifestKey('multi')))?.mediaType, added.mediaType)
  assert.equal((await origin.getManifest(manifestKey(digest)))?.mediaType, MANIFEST)
})

test('tags are listed in order, in pages', async () => {
  const { origin } = await openSingle()
  const list = async (query: string): Promise<unknown[]> => {
    const { body, headers, status } = await origin.list(tagsOf('any/name', query))
    const value = JSON.parse(Buffer.from(body).toString()) as { tags?: string[] }
    return [status, value.tags, headers['link']]
  }
  assert.deepEqual(await list(''), [200, ['latest', 'v1', 'v2'], undefined])
  assert.deepEqual(await list('n=2'), [200, ['latest', 'v1'], '</v2/any/name/tags/list?n=2&last=v1>; rel="next"'])
  assert.deepEqual(await list('n=2&last=v1'), [200, ['v2'], undefined])
  assert.deepEqual(await list('n=3'), [200, ['latest', 'v1', 'v2'], undefined])
  assert.deepEqual(await list('n=0'), [200, [], undefined])
  assert.deepEqual(await list('last=z'), [200, [], undefined])
  assert.deepEqual(await list('n=many'), [400, undefined, undefined])
})

test('referrers are found by their subject, and filtered by type', async () => {
  const { layout, origin } = await openSingle()
  const { digest, mediaType, size } = layout.manifest
  const refer = (fields: object): Promise<{ digest: Digest; size: number; mediaType: string }> =>
    addBlob(
      layout.directory,
      MANIFEST,
      Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, layers: [], ...fields })),
    )
  const subject = { mediaType, digest, size }
  const signature = await refer({ subject, artifactType: 'test/signature', config: {}, annotations: { by: 'me' } })
  const bill = await refer({ subject, config: { mediaType: 'test/bill' } })
  const other = await refer({ subject: { ...subject, digest: `sha256:${'1'.repeat(64)}` }, config: {} })
  await writeIndex(layout.directory, [subject, signature, bill, other])

  const list = async (query: string, of: Digest = digest): Promise<[object[], string | undefined]> => {
    const { body, headers } = await origin.list({
      registry: 'demo',
      repository: 'x',
      listing: { kind: 'referrers', digest: of },
      query,
    })
    return [
      (JSON.parse(Buffer.from(body).toString()) as { manifests: object[] }).manifests,
      headers['oci-filters-applied'],
    ]
  }
  const signatureEntry = { ...signature, artifactType: 'test/signature', annotations: { by: 'me' } }
  assert.deepEqual(await list(''), [[signatureEntry, { ...bill, artifactType: 'test/bill' }], undefined])
  assert.deepEqual(await list('artifactType=test/signature'), [[signatureEntry], 'artifactType'])
  assert.deepEqual(await list('', layout.config.digest), [[], undefined])
})

test('pieces are not copies of one buffer, and bytes are counted', async () => {
  const layout = await makeOciLayout(newDirectory(), { layers: [700_000], seed: 9 })
  const metrics = new Registry()
  const origin = await OciLayoutOrigin.open({ ...testDeps(), metrics }, { name: 'demo', path: layout.directory })
  const bytes = await collect(await origin.open(keyOf(layout.layers[0]!.digest), { start: 1, end: 700_000 }))
  assert.ok(bytes.equals(bytesOf(generatedBlob(700_000, 9_000)).subarray(1)))
  assert.equal(await metric(metrics, 'shoal_upstream_bytes_total'), 699_999)
  await origin.stat(keyOf(`sha256:${'0'.repeat(64)}`))
  assert.equal(
    await metric(metrics, 'shoal_upstream_requests_total', { origin_kind: 'oci-layout', outcome: 'absent' }),
    1,
  )
})

test('a path that is no directory is an error of the configuration', async () => {
  const file = path.join(root, 'file')
  await fs.writeFile(file, '')
  for (const wrong of [file, path.join(root, 'missing')]) {
    await assert.rejects(
      OciLayoutOrigin.open(testDeps(), { name: 'demo', path: wrong }),
      failsWith('ERR_CONFIG_INVALID', 'origins."demo".path'),
    )
  }
})

test('a closed origin refuses everything', async () => {
  const { layout, origin } = await openSingle()
  await origin.close()
  await origin.close()
  const { digest } = layout.config
  const closed = failsWith('ERR_CLOSED')
  await assert.rejects(origin.stat(keyOf(digest)), closed)
  await assert.rejects(origin.open(keyOf(digest), { start: 0, end: 1 }), closed)
  await assert.rejects(origin.statManifest(manifestKey('latest')), closed)
  await assert.rejects(origin.getManifest(manifestKey('latest')), closed)
  await assert.rejects(origin.list(tagsOf('x')), closed)
})
