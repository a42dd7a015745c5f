import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { DiskHealth } from '../../src/store/disk-health.ts'
import type { IndexDb } from '../../src/store/index-db.ts'
import { SourceNames } from '../../src/store/source-names.ts'

function setup(known: { id: number; name: string }[]): { names: SourceNames; added: string[]; refuse: boolean } {
  const added: string[] = []
  const made = { added, refuse: false }
  const index = {
    sources: () => known,
    addSource: (id: number, name: string) => void added.push(`${id} ${name}`),
  } as unknown as IndexDb
  const disk = {
    guard: (statement: () => unknown) => (made.refuse ? undefined : statement()),
  } as unknown as DiskHealth
  return Object.assign(made, { names: new SourceNames({ index, disk }) })
}

test('a name keeps its number, and a new one gets the next', () => {
  const { names, added } = setup([{ id: 7, name: 'registry:docker.io' }])
  assert.deepEqual([names.idOf('registry:docker.io'), names.idOf('peer:a'), names.idOf('peer:a')], [7, 8, 8])
  assert.deepEqual(added, ['8 peer:a'])
  assert.deepEqual([names.nameOf(8), names.nameOf(0)], ['peer:a', undefined])
})

test('a name that cannot be kept, or has no number left, is unknown', () => {
  const full = setup([{ id: 0xffff, name: 'last' }])
  assert.equal(full.names.idOf('one more'), 0)
  const refused = setup([])
  refused.refuse = true
  assert.equal(refused.names.idOf('a'), 0)
  refused.refuse = false
  assert.equal(refused.names.idOf('a'), 1)
})
