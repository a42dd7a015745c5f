import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import {
  formatContentRange,
  formatRangeHeader,
  MAX_RANGES,
  parseContentRange,
  parseRangeHeader,
  rangeLength,
  resolveRange,
  resolveRanges,
  type RangeSpec,
} from '../../src/core/index.ts'

/** Sizes far beyond 32 bits, and small ones on whose edges most mistakes sit. */
const size = fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 2 ** 45 }))
const range = size.chain(total =>
  fc
    .tuple(fc.integer({ min: 0, max: total - 1 }), fc.integer({ min: 1, max: total }))
    .map(([start, length]) => ({ total, range: { start, end: Math.min(total, start + length) } })),
)

const only = (header: string): RangeSpec => {
  const [spec, ...rest] = parseRangeHeader(header) ?? []
  assert.ok(spec !== undefined && rest.length === 0)
  return spec
}

describe('a Range header', () => {
  test('that we write for a range means that range', () => {
    fc.assert(
      fc.property(range, ({ total, range: asked }) => {
        assert.deepEqual(resolveRange(only(formatRangeHeader(asked)), total), asked)
      }),
    )
  })

  test('in each of its forms', () => {
    assert.deepEqual(parseRangeHeader('bytes=0-0'), [{ first: 0, last: 0 }])
    assert.deepEqual(parseRangeHeader('bytes=5-'), [{ first: 5, last: undefined }])
    assert.deepEqual(parseRangeHeader('bytes=-7'), [{ suffix: 7 }])
    assert.deepEqual(parseRangeHeader('bytes=0-1, 4-5 ,-2'), [
      { first: 0, last: 1 },
      { first: 4, last: 5 },
      { suffix: 2 },
    ])
    assert.deepEqual(parseRangeHeader('Bytes \t= 1-2'), [{ first: 1, last: 2 }])
    assert.deepEqual(parseRangeHeader('bytes=,1-2,,'), [{ first: 1, last: 2 }])
  })

  for (const header of [
    undefined,
    '',
    'bytes',
    'bytes=',
    'bytes=-',
    'bytes=a-b',
    'bytes=2-1',
    'bytes=1-2,x',
    'bytes=1--2',
    'bytes=+1-2',
    'items=0-1',
    'bytes=0x1-2',
    'bytes=1.5-2',
  ]) {
    test(`that is wrong is no Range at all: ${String(header)}`, () => assert.equal(parseRangeHeader(header), undefined))
  }

  test('with as many ranges as are allowed is read, with one more it is ignored', () => {
    const header = (count: number): string =>
      `bytes=${Array.from({ length: count }, (_, index) => `${index}-${index}`).join(',')}`
    assert.equal(parseRangeHeader(header(MAX_RANGES))?.length, MAX_RANGES)
    assert.equal(parseRangeHeader(header(MAX_RANGES + 1)), undefined)
  })

  test('beyond 4 GiB is exact', () => {
    const asked = { start: 2 ** 32 + 1, end: 2 ** 33 + 3 }
    assert.deepEqual(resolveRange(only('bytes=4294967297-8589934594'), 2 ** 40), asked)
    assert.equal(formatRangeHeader(asked), 'bytes=4294967297-8589934594')
    assert.equal(rangeLength(asked), 2 ** 33 + 3 - 2 ** 32 - 1)
  })

  test('with more digits than a number holds ends where the blob ends', () => {
    assert.deepEqual(resolveRange(only(`bytes=1-${'9'.repeat(400)}`), 10), { start: 1, end: 10 })
    assert.deepEqual(resolveRange(only(`bytes=-${'9'.repeat(400)}`), 10), { start: 0, end: 10 })
    assert.equal(resolveRange(only(`bytes=${'9'.repeat(400)}-`), 10), undefined)
  })
})

describe('a range resolved against a size', () => {
  const spec = fc.oneof(
    fc.record({ suffix: fc.nat(100) }),
    fc.tuple(fc.nat(100), fc.nat(100)).map(([first, more]) => ({ first, last: first + more })),
    fc.nat(100).map(first => ({ first, last: undefined })),
  )

  test('takes exactly the positions that the specification names', () => {
    fc.assert(
      fc.property(spec, fc.nat(100), (asked, total) => {
        const named = Array.from({ length: total }, (_, position) => position).filter(position =>
          'suffix' in asked
            ? position >= total - asked.suffix
            : position >= asked.first && position <= (asked.last ?? Infinity),
        )
        const found = resolveRange(asked, total)
        assert.deepEqual(found, named.length === 0 ? undefined : { start: named[0], end: named.at(-1)! + 1 })
      }),
    )
  })

  test('keeps the satisfiable ones in the order asked', () => {
    const specs = parseRangeHeader('bytes=50-60,90-95,8-9,-3')
    assert.deepEqual(resolveRanges(specs!, 55), [
      { start: 50, end: 55 },
      { start: 8, end: 10 },
      { start: 52, end: 55 },
    ])
  })

  test('is refused when none is satisfiable, and the error tells the size', () => {
    const refused = { code: 'ERR_RANGE_UNSATISFIABLE', details: { size: 10 } }
    assert.throws(() => resolveRanges([{ first: 10, last: undefined }, { suffix: 0 }], 10), refused)
  })

  test('of an empty blob is never satisfiable', () => {
    for (const header of ['bytes=0-', 'bytes=0-0', 'bytes=-1']) assert.equal(resolveRange(only(header), 0), undefined)
  })
})

describe('a Content-Range header', () => {
  test('that was written for a range and a size is read as both', () => {
    fc.assert(
      fc.property(range, ({ total, range: sent }) => {
        assert.deepEqual(parseContentRange(formatContentRange(sent, total)), { range: sent, size: total })
      }),
    )
  })

  test('may leave the size open', () => {
    assert.deepEqual(parseContentRange('bytes 2-3/*'), { range: { start: 2, end: 4 }, size: undefined })
  })

  for (const header of [
    undefined,
    '',
    'bytes */10',
    'bytes 3-2/10',
    'bytes 0-10/10',
    'bytes 0-1',
    'items 0-1/2',
    `bytes 0-${'9'.repeat(20)}/*`,
    'bytes 0-1/2x',
  ]) {
    test(`that is wrong is not believed: ${String(header)}`, () => assert.equal(parseContentRange(header), undefined))
  }
})
