import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseReference, type BlobSource } from '../../../src/core/index.ts'
import { blobsOnly } from '../../../src/upstream/table/blobs-only.ts'
import { keyOf } from '../rig.ts'

const KEY = keyOf(`sha256:${'a'.repeat(64)}`)

test('a source of blobs has no manifests, and answers listings as registries do', async () => {
  const source: BlobSource = {
    name: 'test:models',
    stat: () => Promise.resolve({ size: 7 }),
    open: () => Promise.resolve(undefined),
  }
  const origin = blobsOnly(source)
  assert.equal(origin.name, 'test:models')
  assert.deepEqual(await origin.stat(KEY), { size: 7 })
  assert.equal(await origin.open(KEY, { start: 0, end: 1 }), undefined)
  assert.ok(!('begin' in origin) && !('readsWhole' in origin))
  const manifest = { registry: 'models', repository: 'a/b', reference: parseReference('latest') }
  assert.equal(await origin.statManifest(manifest), undefined)
  assert.equal(await origin.getManifest(manifest), undefined)
  const answer = await origin.list({ registry: 'models', repository: 'a/b', listing: { kind: 'tags' }, query: '' })
  assert.equal(answer.status, 404)
  assert.equal(answer.headers['content-type'], 'application/json')
  assert.deepEqual(JSON.parse(Buffer.from(answer.body).toString()), {
    errors: [{ code: 'NAME_UNKNOWN', message: 'models has blobs only, no manifests and no listings' }],
  })
})

test('what a source can do besides is handed on', async () => {
  const origin = blobsOnly({
    name: 'test:models',
    stat: () => Promise.resolve(undefined),
    open: () => Promise.resolve(undefined),
    begin: () => Promise.resolve(undefined),
    readsWhole: () => true,
  })
  assert.equal(await origin.begin?.(KEY, { start: 0, end: 1 }), undefined)
  assert.equal(origin.readsWhole?.(KEY), true)
})
