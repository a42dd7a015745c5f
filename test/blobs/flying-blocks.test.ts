import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { FlyingBlocks } from '../../src/blobs/flying-blocks.ts'
import { BLOCK_BYTES } from '../../src/core/index.ts'

const SIZE = 100 * BLOCK_BYTES

function open(isWanted: (start: number, end: number) => boolean = () => true): FlyingBlocks {
  return new FlyingBlocks({ isWanted }, { size: SIZE })
}

function arrive(flying: FlyingBlocks, block: number): void {
  const entry = flying.begin(block)
  entry.pieces.push(Buffer.alloc(BLOCK_BYTES, block))
  entry.length = BLOCK_BYTES
}

function inMemory(flying: FlyingBlocks): number[] {
  return Array.from({ length: 100 }, (_, block) => block).filter(block => flying.has(block))
}

describe('FlyingBlocks', () => {
  test('finds the piece that holds a byte, cut to begin with it, and nothing beyond what was received', () => {
    const flying = open()
    const entry = flying.begin(1)
    entry.pieces.push(Buffer.from('abc'), Buffer.from('de'))
    entry.length = 5
    const at = (offset: number): string | undefined => {
      const piece = flying.pieceAt(BLOCK_BYTES + offset)
      return piece === undefined ? undefined : Buffer.from(piece).toString()
    }
    assert.deepEqual([at(0), at(2), at(3), at(5)], ['abc', 'c', 'de', undefined])
    assert.equal(flying.pieceAt(0), undefined)
  })

  test('a stored block lingers for a reader, and goes when nobody wants it', () => {
    let wanted = true
    const flying = open(() => wanted)
    arrive(flying, 0)
    flying.settle(0, 'stored')
    assert.deepEqual(inMemory(flying), [0])
    wanted = false
    flying.dropUnwanted()
    assert.deepEqual(inMemory(flying), [])
  })

  test('stored blocks linger within 4 MiB, the oldest go first', () => {
    const flying = open()
    for (let block = 0; block < 40; block += 1) {
      arrive(flying, block)
      flying.settle(block, 'stored')
    }
    assert.deepEqual(
      inMemory(flying),
      Array.from({ length: 17 }, (_, index) => 23 + index),
    )
    assert.equal(flying.lingersEnough, true)
  })

  test('unstored blocks wait for their readers within 4 MiB, the oldest go first', () => {
    const flying = open()
    for (let block = 0; block < 40; block += 1) {
      arrive(flying, block)
      flying.settle(block, 'unstored')
      assert.equal(flying.isFull, block >= 15)
    }
    assert.deepEqual(
      inMemory(flying),
      Array.from({ length: 17 }, (_, index) => 23 + index),
    )
  })

  test('arriving blocks are never dropped for room, and partial ones of a broken segment are', () => {
    const flying = open(() => false)
    arrive(flying, 0)
    flying.begin(1).pieces.push(Buffer.alloc(10))
    flying.dropUnwanted()
    assert.deepEqual(inMemory(flying), [0, 1])
    flying.dropPartial({ first: 0, end: 3 })
    assert.deepEqual(inMemory(flying), [0])
  })
})
