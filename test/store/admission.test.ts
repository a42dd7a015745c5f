import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Admission, FREE_MAX_AGE_MS } from '../../src/store/admission.ts'
import { Reservations } from '../../src/store/reservations.ts'
import { ManualClock, MIB } from './harness.ts'

interface Setup {
  readonly admission: Admission
  readonly clock: ManualClock
  free: number | undefined
  pressed: number
  asked: number
}

function setup(options: { maxBytes?: number; minFreeBytes?: number; free?: number } = {}): Setup {
  const clock = new ManualClock()
  const made: Setup = {
    clock,
    free: options.free,
    pressed: 0,
    asked: 0,
    admission: new Admission(
      {
        clock,
        freeBytes: () => {
          made.asked += 1
          return Promise.resolve(made.free)
        },
        onPressure: () => {
          made.pressed += 1
        },
      },
      { maxBytes: options.maxBytes ?? 1000 * MIB, minFreeBytes: options.minFreeBytes ?? 0 },
    ),
  }
  return made
}

test('above the soft limit it presses, above the hard limit it refuses', () => {
  const made = setup()
  const { admission } = made
  assert.equal(admission.reserve(1000 * MIB), true)
  assert.equal(made.pressed, 0)
  assert.equal(admission.hardLimit, 1050 * MIB)
  assert.equal(admission.reserve(50 * MIB), true)
  assert.equal(admission.reserve(1), false)
})

test('pressure is told of both when room is granted above the soft limit and when it is refused', () => {
  const made = setup()
  made.admission.start(1000 * MIB)
  assert.equal(made.admission.reserve(1), true)
  assert.equal(made.pressed, 1)
  assert.equal(made.admission.reserve(51 * MIB), false)
  assert.equal(made.pressed, 2)
})

test('a small store still has 16 MiB between its limits', () => {
  const { admission } = setup({ maxBytes: 10 * MIB })
  assert.equal(admission.softLimit, 10 * MIB)
  assert.equal(admission.hardLimit, 26 * MIB)
})

test('bytes that are promised to others are not taken', async () => {
  const { admission } = setup({ free: 300 * MIB, minFreeBytes: 100 * MIB })
  admission.start(50 * MIB)
  await admission.refresh()
  assert.equal(admission.hardLimit, 250 * MIB)
  assert.ok(admission.softLimit < 250 * MIB)
  assert.equal(admission.reserve(200 * MIB), true)
  assert.equal(admission.reserve(1), false)
})

test('the disk is asked at most once a second, and what it says presses', async () => {
  const made = setup({ free: 2000 * MIB })
  const { admission, clock } = made
  await admission.refresh()
  admission.start(100 * MIB)
  made.free = 0
  assert.equal(admission.reserve(MIB), true)
  assert.equal(made.asked, 1)
  clock.advance(FREE_MAX_AGE_MS)
  assert.equal(admission.reserve(MIB), true)
  assert.equal(made.asked, 2)
  await admission.refresh()
  assert.equal(admission.freeBytes, 0)
  assert.ok(made.pressed > 0)
  assert.equal(admission.hardLimit, 100 * MIB)
})

test('a disk that cannot be asked leaves only the configured limits', async () => {
  const { admission } = setup()
  await admission.refresh()
  assert.equal(admission.freeBytes, undefined)
  assert.equal(admission.softLimit, 1000 * MIB)
})

test('whatever the order of reserving, taking, writing and releasing, nothing is lost or made up', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('reserve' as const), bytes: fc.integer({ min: 1, max: 100 }) }),
    fc.record({ kind: fc.constant('write' as const), bytes: fc.integer({ min: 1, max: 60 }) }),
    fc.record({ kind: fc.constant('release' as const), which: fc.nat(9) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), steps => {
      const { admission } = setup()
      const reservations = new Reservations(admission)
      const open: Disposable[] = []
      let written = 0
      for (const action of steps) {
        if (action.kind === 'reserve') open.push(reservations.reserve(action.bytes)!)
        else if (action.kind === 'write') {
          assert.equal(reservations.take(action.bytes), true)
          admission.written(action.bytes)
          written += action.bytes
        } else open[action.which % Math.max(1, open.length)]?.[Symbol.dispose]()
        assert.equal(admission.present, written)
        assert.ok(admission.reserved >= 0)
      }
      for (const lease of open) lease[Symbol.dispose]()
      assert.deepEqual([admission.reserved, admission.used], [0, written])
    }),
  )
})

test('a write that needs more than was reserved asks for the rest, and takes nothing when refused', () => {
  const { admission } = setup({ maxBytes: 10 * MIB })
  const reservations = new Reservations(admission)
  const lease = reservations.reserve(26 * MIB - 10)!
  assert.equal(reservations.take(26 * MIB + 1), false)
  assert.equal(admission.reserved, 26 * MIB - 10)
  assert.equal(reservations.take(26 * MIB), true)
  lease[Symbol.dispose]()
  lease[Symbol.dispose]()
  assert.equal(admission.reserved, 26 * MIB)
})
