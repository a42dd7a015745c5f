import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { findBlobLength } from '../../../src/upstream/local/blob-length.ts'
import { digestOf } from '../../support/generated-blob.ts'

const KIB = 1024

async function* inPieces(bytes: Buffer, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    yield await Promise.resolve(bytes.subarray(at, at + pieceBytes))
  }
}

test('a blob is found again behind whatever zeros it has, begins with or is followed by', async () => {
  const run = fc.oneof(
    fc.uint8Array({ maxLength: 40 }).map(bytes => Buffer.from(bytes)),
    fc.nat({ max: 300 }).map(length => Buffer.alloc(length)),
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(run, { maxLength: 5 }),
      fc.nat({ max: 600 }),
      fc.integer({ min: 1, max: 200 }),
      fc.constantFrom('sha256' as const, 'sha512' as const),
      async (runs, padding, pieceBytes, algorithm) => {
        const blob = Buffer.concat(runs)
        const padded = Buffer.concat([blob, Buffer.alloc(padding)])
        assert.equal(await findBlobLength(inPieces(padded, pieceBytes), digestOf(blob, algorithm)), blob.length)
      },
    ),
    { numRuns: 100 },
  )
})

test('a blob that ends in more zeros than any is found when it fills its place, and only then', async () => {
  const blob = Buffer.concat([Buffer.from('x'), Buffer.alloc(400 * KIB)])
  assert.equal(await findBlobLength(inPieces(blob, 64 * KIB), digestOf(blob)), blob.length)
  const padded = Buffer.concat([blob, Buffer.alloc(1)])
  assert.equal(await findBlobLength(inPieces(padded, 64 * KIB), digestOf(blob)), undefined)
})

test('other bytes than the blob, or behind the blob, have no length', async () => {
  const blob = Buffer.from('the blob')
  for (const bytes of [Buffer.from('another'), Buffer.concat([blob, Buffer.alloc(10), Buffer.from('x')])]) {
    assert.equal(await findBlobLength(inPieces(bytes, 3), digestOf(blob)), undefined)
  }
})
