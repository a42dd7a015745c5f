import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  humanBytes,
  humanSeconds,
  openProgress,
  progressBar,
  progressLine,
  silentProgress,
} from '../../src/cli/progress.ts'

const MIB = 2 ** 20

/** An output and a clock that the test holds in its hands. */
function stage(isTTY: boolean): {
  text: () => string
  advance: (ms: number) => void
  output: { write(text: string): void; isTTY: boolean; columns: number }
  clock: { now: () => number }
} {
  const written: string[] = []
  let now = 1_000_000
  return {
    text: () => written.join(''),
    advance: ms => (now += ms),
    output: { write: text => void written.push(text), isTTY, columns: 80 },
    clock: { now: () => now },
  }
}

test('bytes for people', () => {
  assert.deepEqual([0, 1023, 1024, 1536, MIB - 1, MIB, 5 * 2 ** 40].map(humanBytes), [
    '0 B',
    '1023 B',
    '1.0 KiB',
    '1.5 KiB',
    '1.0 MiB',
    '1.0 MiB',
    '5.0 TiB',
  ])
})

test('time for people', () => {
  assert.deepEqual([0, 0.4, 59.4, 59.6, 187, 3600, 7530].map(humanSeconds), [
    '0s',
    '0s',
    '59s',
    '1m00s',
    '3m07s',
    '1h00m',
    '2h05m',
  ])
})

test('a bar tells how much is done, how fast, and how long it will take', () => {
  const state = { label: 'layer', done: 50 * MIB, total: 200 * MIB, elapsedMs: 5000 }
  const facts = '50.0 MiB of 200.0 MiB  10.0 MiB/s  15s left'
  assert.equal(progressBar(state, 70), `layer [==>       ]  25 %  ${facts}`)
  assert.equal(progressBar(state, 200), `layer [==========>${' '.repeat(29)}]  25 %  ${facts}`)
  assert.equal(progressBar(state, 60), `layer  25 %  ${facts}`)
})

test('a bar that is full tells how long it took', () => {
  const state = { label: 'layer', done: 200 * MIB, total: 200 * MIB, elapsedMs: 5000 }
  assert.equal(progressBar(state, 72), `layer [${'='.repeat(12)}] 100 %  200.0 MiB of 200.0 MiB  40.0 MiB/s  took 5s`)
})

test('of something whose size is unknown only the amount and the rate are told', () => {
  const state = { label: 'scan', done: 3 * MIB, total: undefined, elapsedMs: 2000 }
  assert.equal(progressBar(state, 80), 'scan 3.0 MiB  1.5 MiB/s  2s')
  assert.equal(progressLine(state), 'scan: 3.0 MiB, 1.5 MiB/s, 2s')
})

test('nothing of nothing is all of it', () => {
  assert.match(progressLine({ label: 'empty', done: 0, total: 0, elapsedMs: 0 }), /100 %, 0 B of 0 B/)
})

test('a bar never is wider than the terminal', () => {
  const state = fc.record({
    label: fc.string({ maxLength: 30 }),
    done: fc.nat(),
    total: fc.option(fc.nat(), { nil: undefined }),
    elapsedMs: fc.nat(),
  })
  fc.assert(
    fc.property(state, fc.integer({ min: 1, max: 200 }), (each, columns) =>
      assert.ok(progressBar(each, columns).length <= columns),
    ),
  )
})

test('on a terminal the bar is redrawn in place, a few times a second, and its last state stays', () => {
  const { output, clock, advance, text } = stage(true)
  const progress = openProgress(output, { label: 'layer', total: 100 }, clock)
  for (let done = 1; done <= 100; done += 1) {
    advance(10)
    progress.update(done)
  }
  progress.finish()
  progress.finish()
  progress.update(5)
  const drawings = text().split('\r\u001b[K')
  assert.equal(drawings.length, 1 + 10 + 1)
  assert.match(drawings.at(-1)!, /^layer \[=+\] 100 % {2}100 B of 100 B.*took 1s\n$/)
})

test('elsewhere one plain line is written every few seconds, and one at the end', () => {
  const { output, clock, advance, text } = stage(false)
  const progress = openProgress(output, { label: 'layer' }, clock)
  for (let second = 1; second <= 12; second += 1) {
    advance(1000)
    progress.update(second * 100, 1200)
  }
  progress.finish()
  assert.deepEqual(
    text()
      .split('\n')
      .map(line => line.split(',')[0]),
    ['layer:  41 %', 'layer:  83 %', 'layer: 100 %', ''],
  )
  assert.ok(!text().includes('\u001b'))
})

test('silent progress takes everything', () => {
  silentProgress.update(1, 2)
  silentProgress.finish()
})
