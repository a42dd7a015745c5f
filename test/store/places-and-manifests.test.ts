import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Bench, contentOf, digestOf } from './harness.ts'

const digest = digestOf(contentOf(10))

test('a place is what was put there last, for that registry, repository and digest, also after a restart', async () => {
  await using bench = await Bench.open()
  const first = await bench.store()
  assert.equal(first.places.where('docker.io', 'library/a', digest), undefined)
  first.places.put('docker.io', 'library/a', digest, { visibility: 'private', until: 10 })
  first.places.put('docker.io', 'library/a', digest, { visibility: 'public', until: 20, size: 0 })
  first.places.put('docker.io', 'library/b', digest, { visibility: 'shared', until: 30 })
  const check = (places: typeof first.places): void => {
    assert.deepEqual(places.where('docker.io', 'library/a', digest), { visibility: 'public', until: 20, size: 0 })
    assert.deepEqual(places.where('docker.io', 'library/b', digest), { visibility: 'shared', until: 30 })
    assert.equal(places.where('docker.io', 'library/c', digest), undefined)
    assert.equal(places.where('quay.io', 'library/a', digest), undefined)
    assert.equal(places.where('docker.io', 'library/a', digestOf(contentOf(11))), undefined)
  }
  check(first.places)
  await first.close()
  const { places } = await bench.store()
  check(places)
  places.remove('docker.io', 'library/a', digest)
  assert.equal(places.where('docker.io', 'library/a', digest), undefined)
  assert.ok(places.where('docker.io', 'library/b', digest))
})

test('a place that fell out of memory is read again from the index', async () => {
  await using bench = await Bench.open()
  const { places } = await bench.store()
  places.put('r', 'first', digest, { visibility: 'public', until: 1 })
  for (let i = 0; i < 10_001; i += 1) places.where('r', `other${i}`, digest)
  assert.deepEqual(places.where('r', 'first', digest), { visibility: 'public', until: 1 })
})

test('a manifest is what was put there last, for that registry, repository and reference, also after a restart', async () => {
  await using bench = await Bench.open()
  const first = await bench.store()
  const older = { digest, mediaType: 'a/b', size: 1, checkedAt: 1, etag: '"x"' }
  const newer = { digest, mediaType: 'a/b', size: 2, checkedAt: 3 }
  first.manifests.put('r', 'n', 'latest', older)
  assert.deepEqual(first.manifests.get('r', 'n', 'latest'), older)
  first.manifests.put('r', 'n', 'latest', newer)
  assert.deepEqual(first.manifests.get('r', 'n', 'latest'), newer)
  await first.close()
  const { manifests } = await bench.store()
  assert.deepEqual(manifests.get('r', 'n', 'latest'), newer)
  assert.equal(manifests.get('r', 'n', 'v1'), undefined)
  manifests.remove('r', 'n', 'latest')
  assert.equal(manifests.get('r', 'n', 'latest'), undefined)
})
