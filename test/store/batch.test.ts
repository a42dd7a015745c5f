import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLogger } from '../../src/core/index.ts'
import { Batch, BATCH_MS, BATCH_ROWS, type BatchMember } from '../../src/store/batch.ts'
import { DiskHealth } from '../../src/store/disk-health.ts'
import type { BlobUpdate, ChunkUpdate, IndexDb, LateRow } from '../../src/store/index-db.ts'
import { digestOf, ManualClock, systemError, until } from './harness.ts'

interface Setup extends AsyncDisposable {
  readonly batch: Batch
  readonly clock: ManualClock
  readonly disk: DiskHealth
  /** Transactions so far: ids of blobs, `id:chunk`, and repositories of places. */
  readonly commits: { blobs: number[]; chunks: string[]; places: string[] }[]
  /** Fails the next transactions. */
  broken: boolean
}

function setup(): Setup {
  const clock = new ManualClock()
  const commits: Setup['commits'] = []
  const index = {
    commit: (blobs: readonly BlobUpdate[], chunks: readonly ChunkUpdate[], late: readonly LateRow[]) => {
      if (made.broken) throw systemError('SQLITE_FULL')
      assert.ok(blobs.length + chunks.length + late.length <= BATCH_ROWS)
      commits.push({
        blobs: blobs.map(({ id }) => id),
        chunks: chunks.map(({ blobId, row }) => `${blobId}:${row.index}`),
        places: late.flatMap(({ kind, row }) => (kind === 'place' ? [row.repository] : [])),
      })
    },
  } as unknown as IndexDb
  const disk = new DiskHealth({
    log: silentLogger,
    clock,
    probe: () => Promise.resolve(),
    onCorruptIndex: () => Promise.resolve(),
    onRecovery: () => undefined,
  })
  const batch = new Batch({ index, disk, clock })
  const made: Setup = {
    ...{ batch, clock, disk, commits, broken: false },
    [Symbol.asyncDispose]: async () => {
      await batch.close()
      await disk.close()
    },
  }
  return made
}

function placeOf(repository: string): LateRow {
  const digest = digestOf(Buffer.alloc(0))
  return { kind: 'place', row: { registry: 'r', repository, digest, visibility: 'public', until: 1, size: null } }
}

function member(id: number): BatchMember {
  return {
    blobUpdate: () => ({ id, state: 'partial', presentBytes: 0, accessed: 0 }),
    chunkUpdate: chunk => ({
      blobId: id,
      row: { index: chunk, mask: 1, crcs: new Uint8Array(64), sources: new Uint8Array(32) },
    }),
  }
}

test('many changes of one chunk cost one row', async () => {
  await using at = setup()
  const one = member(1)
  for (let i = 0; i < 1000; i += 1) at.batch.note(one, 7)
  assert.equal(at.batch.rows, 2)
  at.clock.advance(BATCH_MS)
  await until(() => at.commits.length > 0, 'the batch is written')
  assert.deepEqual(at.commits, [{ blobs: [1], chunks: ['1:7'], places: [] }])
  assert.equal(at.batch.rows, 0)
})

test('a full batch is written at once', async () => {
  await using at = setup()
  for (let id = 1; id <= BATCH_ROWS; id += 1) {
    assert.equal(at.commits.length, 0)
    at.batch.note(member(id))
  }
  assert.equal(at.commits[0]?.blobs.length, BATCH_ROWS)
  assert.equal(at.batch.rows, 0)
})

test('flush() writes everything, however much, and every change once', async () => {
  await using at = setup()
  const [one, two] = [member(1), member(2)]
  for (let chunk = 0; chunk < 40; chunk += 1) at.batch.note(one, chunk)
  at.broken = true
  for (let chunk = 0; chunk < 300; chunk += 1) at.batch.note(two, chunk)
  assert.equal(at.disk.writable, false)
  assert.equal(at.commits.length, 0)
  assert.equal(await at.batch.flush(), false)
  assert.equal(at.batch.rows, 342)
  at.broken = false
  assert.equal(await at.batch.flush(), true)
  const written = at.commits.flatMap(({ chunks }) => chunks)
  assert.equal(written.length, 340)
  assert.equal(new Set(written).size, 340)
  assert.equal(at.batch.rows, 0)
})

test('flush() waits for what waited when it was called, however much comes meanwhile', async () => {
  await using at = setup()
  const [one, two] = [member(1), member(2)]
  const flush = { done: false }
  at.batch.note(one, 1)
  at.batch.put('a', placeOf('a'))
  const flushing = at.batch.flush().then(done => (flush.done = done))
  for (let turn = 0; turn < 100 && !flush.done; turn += 1) {
    at.batch.note(one, turn)
    at.batch.note(two)
    at.batch.put(`late ${turn}`, placeOf('b'))
    await new Promise(setImmediate)
  }
  assert.equal(flush.done, true)
  assert.ok(at.batch.rows > 0)
  await flushing
})

test('close() writes everything', async () => {
  const at = setup()
  for (let id = 1; id <= 30; id += 1) at.batch.note(member(id), 0)
  assert.equal(await at.batch.close(), true)
  assert.equal(at.batch.rows, 0)
  await at.disk.close()
})

test('rows of other tables go along, the latest of each key, unless they were withdrawn', async () => {
  await using at = setup()
  at.batch.note(member(1))
  for (const repository of ['a', 'b', 'c', 'd']) at.batch.put(repository, placeOf(repository))
  at.batch.put('b', placeOf('newer'))
  at.batch.withdraw('c')
  at.batch.withdraw('c')
  assert.equal(at.batch.rows, 4)
  assert.deepEqual(at.batch.waiting('b'), placeOf('newer'))
  assert.equal(at.batch.waiting('c'), undefined)
  assert.equal(await at.batch.flush(), true)
  assert.equal(at.batch.waiting('b'), undefined)
  assert.deepEqual(at.commits, [{ blobs: [1], chunks: [], places: ['a', 'newer', 'd'] }])
  at.broken = true
  at.batch.put('e', placeOf('e'))
  assert.equal(await at.batch.flush(), false)
  assert.deepEqual(at.batch.waiting('e'), placeOf('e'))
  at.broken = false
})

test('what was forgotten is not written', async () => {
  await using at = setup()
  const [one, two] = [member(1), member(2)]
  at.batch.note(one, 3)
  at.batch.note(two, 4)
  at.batch.forget(one)
  at.batch.forget(one)
  assert.equal(at.batch.rows, 2)
  assert.equal(await at.batch.close(), true)
  assert.deepEqual(at.commits, [{ blobs: [2], chunks: ['2:4'], places: [] }])
})

test('while the disk is off, chunks wait, and uses of all too many blobs are not remembered', async () => {
  await using at = setup()
  at.disk.trouble(systemError('EROFS'), 'test')
  for (let id = 1; id <= 5000; id += 1) at.batch.note(member(id))
  assert.equal(at.batch.rows, 4096)
  at.batch.note(member(5001), 0)
  assert.equal(at.batch.rows, 4098)
  for (let id = 1; id <= 5000; id += 1) at.batch.put(String(id), placeOf('a'))
  assert.equal(at.batch.rows, 4098 + 4096)
  assert.equal(at.commits.length, 0)
})
