import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { planSegment, wholeChunks } from '../../src/blobs/plan.ts'
import { BLOCK_BYTES, CHUNK_BYTES, blocksOf } from '../../src/core/index.ts'

const BLOCKS = 64
const SIZE = BLOCKS * BLOCK_BYTES - 1000

const states = fc.record({
  present: fc.array(fc.boolean(), { minLength: BLOCKS, maxLength: BLOCKS }),
  claimed: fc.array(fc.boolean(), { minLength: BLOCKS, maxLength: BLOCKS }),
})
const wishes = fc
  .tuple(fc.nat(SIZE), fc.nat(SIZE), fc.integer({ min: 1, max: 2 * SIZE }))
  .map(([a, b, window]) => ({ position: Math.min(a, b), end: Math.max(a, b), window }))

function stateOf({ present, claimed }: { present: boolean[]; claimed: boolean[] }) {
  return {
    isPresent: (block: number) => present[block] === true,
    isClaimed: (block: number) => claimed[block] === true,
  }
}

describe('planSegment', () => {
  test('fetches only wanted blocks that are neither present nor claimed, and never more than allowed', () => {
    fc.assert(
      fc.property(states, wishes, fc.integer({ min: 1, max: 40 }), (state, wish, maxBlocks) => {
        const run = planSegment(wish, maxBlocks, stateOf(state))
        if (run === undefined) return
        const wanted = blocksOf({ start: wish.position, end: wish.end })
        assert.ok(run.first >= wanted.first && run.end <= wanted.end && run.end > run.first)
        assert.ok(run.end - run.first <= maxBlocks)
        for (let block = run.first; block < run.end; block += 1) {
          assert.ok(state.present[block] !== true && state.claimed[block] !== true)
        }
      }),
    )
  })

  test('nothing to fetch means that nothing inside the window is missing', () => {
    fc.assert(
      fc.property(states, wishes, (state, wish) => {
        if (planSegment(wish, 8, stateOf(state)) !== undefined) return
        const inWindow = blocksOf({ start: wish.position, end: Math.min(wish.end, wish.position + wish.window) })
        for (let block = inWindow.first; block < inWindow.end; block += 1) {
          assert.ok(state.present[block] === true || state.claimed[block] === true)
        }
      }),
    )
  })

  test('taking one segment after the other covers exactly the missing blocks of the wish', () => {
    fc.assert(
      fc.property(states, wishes, fc.integer({ min: 1, max: 40 }), (state, wish, maxBlocks) => {
        const claimed = [...state.claimed]
        const taken: number[] = []
        for (;;) {
          const run = planSegment({ ...wish, window: SIZE }, maxBlocks, stateOf({ present: state.present, claimed }))
          if (run === undefined) break
          for (let block = run.first; block < run.end; block += 1) {
            taken.push(block)
            claimed[block] = true
          }
        }
        const wanted = blocksOf({ start: wish.position, end: wish.end })
        const expected: number[] = []
        for (let block = wanted.first; block < wanted.end; block += 1) {
          if (state.present[block] !== true && state.claimed[block] !== true) expected.push(block)
        }
        assert.deepEqual(taken, expected)
      }),
    )
  })

  test('a segment may reach beyond the window, but does not begin beyond it', () => {
    const state = stateOf({ present: [], claimed: [] })
    const wish = { position: 0, end: SIZE, window: 1 }
    assert.deepEqual(planSegment(wish, 16, state), { first: 0, end: 16 })
    const claimedFirst = { isPresent: () => false, isClaimed: (block: number) => block < 16 }
    assert.equal(planSegment(wish, 16, claimedFirst), undefined)
  })
})

test('prefetch works in whole chunks and does not reach beyond the blob', () => {
  assert.deepEqual(wholeChunks({ start: CHUNK_BYTES + 5, end: CHUNK_BYTES + 6 }, 10 * CHUNK_BYTES), {
    start: CHUNK_BYTES,
    end: 2 * CHUNK_BYTES,
  })
  assert.deepEqual(wholeChunks({ start: 0, end: 1 }, 100), { start: 0, end: 100 })
})
