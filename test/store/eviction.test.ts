import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { pickColdChunks, pickVictims, type Candidate } from '../../src/store/eviction.ts'

const candidates = fc
  .array(fc.record({ presentBytes: fc.nat(1000), held: fc.boolean(), pinned: fc.boolean() }), { maxLength: 30 })
  .chain(items =>
    fc
      .shuffledSubarray([...items.keys()], { minLength: items.length })
      .map(order => items.map((item, i): Candidate => ({ ...item, accessed: order[i] ?? 0 }))),
  )

test('victims are never held or pinned, and free enough or everything that may go', () => {
  fc.assert(
    fc.property(candidates, fc.nat(5000), fc.nat(2000), (all, bytes, limit) => {
      const victims = pickVictims(all, bytes, limit)
      const free = all.filter(({ held, pinned }) => !held && !pinned)
      for (const { candidate } of victims) assert.ok(free.includes(candidate))
      assert.equal(new Set(victims.map(({ candidate }) => candidate)).size, victims.length)
      const freed = victims.reduce((sum, victim) => sum + victim.bytes, 0)
      const possible = free.reduce((sum, { presentBytes }) => sum + presentBytes, 0)
      assert.ok(freed >= Math.min(bytes, possible))
      for (const victim of victims) assert.ok(victim.bytes <= victim.candidate.presentBytes)
    }),
  )
})

test('no small blob stays while a more recently used small one goes, and none goes in vain', () => {
  fc.assert(
    fc.property(candidates, fc.integer({ min: 1, max: 5000 }), (all, bytes) => {
      const limit = 2000
      const victims = pickVictims(all, bytes, limit)
      const gone = new Set(victims.map(({ candidate }) => candidate))
      const newest = Math.max(-1, ...[...gone].map(({ accessed }) => accessed))
      for (const candidate of all) {
        if (!candidate.held && !candidate.pinned && candidate.accessed < newest) assert.ok(gone.has(candidate))
      }
      const beforeLast = victims.slice(0, -1).reduce((sum, victim) => sum + victim.bytes, 0)
      assert.ok(victims.length === 0 || beforeLast < bytes)
    }),
  )
})

test('a blob of more than half the limit goes last, and only in part', () => {
  const large: Candidate = { presentBytes: 800, accessed: 1, held: false, pinned: false }
  const small: Candidate = { presentBytes: 100, accessed: 2, held: false, pinned: false }
  assert.deepEqual(pickVictims([large, small], 150, 1000), [
    { candidate: small, bytes: 100 },
    { candidate: large, bytes: 50 },
  ])
})

test('the coldest chunks go first, later ones before earlier ones, and no more than needed', () => {
  const chunk = (index: number, lastUse: number, presentBytes = 4): Parameters<typeof pickColdChunks>[0][number] => ({
    index,
    lastUse,
    presentBytes,
  })
  const chunks = [chunk(0, 0), chunk(1, 9), chunk(2, 0), chunk(3, 5), chunk(4, 0, 0)]
  assert.deepEqual(
    pickColdChunks(chunks, 9).map(({ index }) => index),
    [2, 0, 3],
  )
  assert.equal(pickColdChunks(chunks, 1000).length, 4)
  assert.deepEqual(pickColdChunks(chunks, 0), [])
})
