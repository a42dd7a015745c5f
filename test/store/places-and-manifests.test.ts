import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { BATCH_MS } from '../../src/store/batch.ts'
import { Bench, contentOf, digestOf, MIB, until } from './harness.ts'

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

test('a place that fell out of memory is read again from the index, or found among the rows that wait', async () => {
  await using bench = await Bench.open()
  const { places } = await bench.store()
  places.put('r', 'first', digest, { visibility: 'public', until: 1 })
  bench.clock.advance(BATCH_MS)
  await until(() => bench.clock.sleeping === 0, 'the row is written')
  places.put('r', 'second', digest, { visibility: 'shared', until: 2 })
  for (let i = 0; i < 10_001; i += 1) places.where('r', `other${i}`, digest)
  assert.deepEqual(places.where('r', 'first', digest), { visibility: 'public', until: 1 })
  assert.deepEqual(places.where('r', 'second', digest), { visibility: 'shared', until: 2 })
})

test('what was removed before it was written stays removed', async () => {
  await using bench = await Bench.open()
  const first = await bench.store()
  for (const repository of ['kept', 'gone']) {
    first.places.put('r', repository, digest, { visibility: 'public', until: 1 })
    first.manifests.put('r', repository, 'latest', { digest, mediaType: 'a/b', size: 1, checkedAt: 1 })
  }
  first.places.remove('r', 'gone', digest)
  first.manifests.remove('r', 'gone', 'latest')
  assert.equal(first.manifests.get('r', 'gone', 'latest'), undefined)
  await first.close()
  const { places, manifests } = await bench.store()
  assert.deepEqual(
    ['kept', 'gone'].map(repository => [
      places.where('r', repository, digest) !== undefined,
      manifests.get('r', repository, 'latest') !== undefined,
    ]),
    [
      [true, true],
      [false, false],
    ],
  )
})

test('however many places are learnt, the write-ahead log stays small', async () => {
  await using bench = await Bench.open()
  const { places } = await bench.store()
  for (let i = 0; i < 9000; i += 1) {
    places.put('r', `repository${i}`, digest, { visibility: 'public', until: 1 })
    if (i % 100 === 0) await new Promise(setImmediate)
  }
  assert.ok((await fs.stat(path.join(bench.directory, 'index.db-wal'))).size < 16 * MIB)
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
