import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLogger, type Digest } from '../../src/core/index.ts'
import type { DataFiles } from '../../src/store/index.ts'
import type { DiskHealth } from '../../src/store/disk-health.ts'
import type { IndexDb } from '../../src/store/index-db.ts'
import { Sweeper } from '../../src/store/sweeper.ts'
import { Tasks } from '../../src/store/tasks.ts'
import { digestOf } from './harness.ts'

test('a sweep over many names lets others run', async () => {
  const names: Digest[] = Array.from({ length: 200 }, (_, seed) => digestOf(Buffer.from([seed])))
  const files = {
    names: async function* () {
      await Promise.resolve()
      yield* names
    },
    deleteOrphan: () => Promise.resolve(10),
  } as unknown as DataFiles
  let lookups = 0
  const index = {
    find: (digest: Digest) => {
      lookups += 1
      return digest === names[0] ? {} : undefined
    },
  } as unknown as IndexDb
  const disk = { guard: <T>(statement: () => T) => statement() } as unknown as DiskHealth
  const sweeper = new Sweeper({ index, disk, files, tasks: new Tasks(), log: silentLogger, isOpen: () => true })
  let most = 0
  let before = 0
  const run = { done: false }
  const sweeping = sweeper.sweep().finally(() => (run.done = true))
  while (!run.done) {
    await new Promise(setImmediate)
    most = Math.max(most, lookups - before)
    before = lookups
  }
  assert.deepEqual(await sweeping, { blobs: 199, bytes: 1990 })
  assert.ok(most <= 64, `${most} in one turn`)
})
