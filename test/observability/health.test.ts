import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Health } from '../../src/observability/index.ts'

test('nobody has reported: not ready', () => {
  assert.deepEqual(new Health().ready(), { ok: false, components: {} })
})

test('all are well: ready; one is not: not ready, and it says why', () => {
  const health = new Health()
  health.set('store', true)
  health.set('mirror', true)
  assert.deepEqual(health.ready(), { ok: true, components: { store: { ok: true }, mirror: { ok: true } } })
  health.set('store', false, 'no space left on device')
  assert.deepEqual(health.ready(), {
    ok: false,
    components: { store: { ok: false, reason: 'no space left on device' }, mirror: { ok: true } },
  })
  health.set('store', true)
  assert.equal(health.ready().ok, true)
})

test('an expected component is waited for', () => {
  const health = new Health(['store', 'mirror'])
  health.set('store', true)
  assert.deepEqual(health.ready(), {
    ok: false,
    components: { store: { ok: true }, mirror: { ok: false, reason: 'starting' } },
  })
})

test('what was handed out does not change afterwards', () => {
  const health = new Health(['store'])
  const before = health.ready()
  health.set('store', true)
  assert.equal(before.components['store']?.ok, false)
})
