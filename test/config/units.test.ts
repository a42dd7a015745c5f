import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { formatDuration, formatSize, parseDuration, parseSize } from '../../src/config/index.ts'

const whole = fc.oneof(fc.nat(10_000), fc.maxSafeNat())

describe('a duration', () => {
  test('that is written and read again is the same', () => {
    fc.assert(fc.property(whole, ms => assert.equal(parseDuration(formatDuration(ms)), ms)))
  })

  test('is a number with a unit, or several of them', () => {
    const expected = {
      '0': 0,
      '0s': 0,
      '300ms': 300,
      '5s': 5000,
      '1m': 60_000,
      '1.5h': 5_400_000,
      '1d': 86_400_000,
      '1m30s': 90_000,
      '0.3s': 300,
    }
    for (const [text, ms] of Object.entries(expected)) assert.equal(parseDuration(text), ms, text)
  })

  for (const text of [
    '',
    '5',
    '5 s',
    ' 5s',
    '-5s',
    '5S',
    '1e3s',
    '.5s',
    '5.s',
    's',
    '5sec',
    '0.0001ms',
    `${'9'.repeat(20)}s`,
    '5s\n',
  ]) {
    test(`is not ${JSON.stringify(text)}`, () => assert.equal(parseDuration(text), undefined))
  }

  test('is written in the largest unit that divides it', () => {
    assert.deepEqual([0, 1, 1000, 1001, 90_000, 3_600_000, 172_800_000].map(formatDuration), [
      '0',
      '1ms',
      '1s',
      '1001ms',
      '90s',
      '1h',
      '2d',
    ])
  })
})

describe('a size', () => {
  test('that is written and read again is the same', () => {
    fc.assert(fc.property(whole, bytes => assert.equal(parseSize(formatSize(bytes)), bytes)))
  })

  test('is a number with a binary or a decimal unit', () => {
    const expected = {
      '0': 0,
      '512B': 512,
      '4MiB': 4_194_304,
      '1.5KiB': 1536,
      '50GiB': 53_687_091_200,
      '10GB': 1e10,
      '1kB': 1000,
      '1KB': 1000,
      '2TiB': 2 ** 41,
      '1PiB': 2 ** 50,
      '1PB': 1e15,
    }
    for (const [text, bytes] of Object.entries(expected)) assert.equal(parseSize(text), bytes, text)
  })

  for (const text of ['', '5', '5 MiB', '-1B', '4mib', '4Mi', '4M', 'MiB', '1GiB1MiB', '0.1B', '99999PiB', '4MiB\n']) {
    test(`is not ${JSON.stringify(text)}`, () => assert.equal(parseSize(text), undefined))
  }

  test('is written in the largest binary unit that divides it', () => {
    assert.deepEqual([0, 1, 1024, 1025, 53_687_091_200].map(formatSize), ['0', '1B', '1KiB', '1025B', '50GiB'])
  })
})
