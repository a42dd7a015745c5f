import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  BLOCK_BYTES,
  parseDigest,
  ShoalError,
  type BlobKey,
  type BlobSource,
  type ByteRange,
  type Digest,
} from '../../src/core/index.ts'
import { bytesOf, digestOf, generatedBlob } from '../support/generated-blob.ts'

export interface SourceUnderTest {
  readonly source: BlobSource
  readonly key: (digest: Digest) => BlobKey
  readonly close: () => Promise<void>
}

const SIZE = 3 * BLOCK_BYTES + 12_345
const LARGE = bytesOf(generatedBlob(SIZE, 7))
const SMALL = Buffer.from('x')
const EMPTY = Buffer.alloc(0)
const UNKNOWN = parseDigest(`sha256:${'0'.repeat(64)}`)

/** What is asked of anything that calls itself a BlobSource. `make` gets the blobs that the source shall have. */
export function blobSourceConformance(
  name: string,
  make: (blobs: Map<Digest, Uint8Array>) => Promise<SourceUnderTest>,
): void {
  const [large, small, empty] = [digestOf(LARGE), digestOf(SMALL), digestOf(EMPTY)]
  const large512 = digestOf(LARGE, 'sha512')
  const blobs = new Map<Digest, Uint8Array>([
    [large, LARGE],
    [large512, LARGE],
    [small, SMALL],
    [empty, EMPTY],
  ])

  const check = (title: string, body: (subject: SourceUnderTest) => Promise<void>): void => {
    test(title, async () => {
      const subject = await make(blobs)
      try {
        await body(subject)
      } finally {
        await subject.close()
      }
    })
  }
  const read = async (
    { key, source }: SourceUnderTest,
    digest: Digest,
    range: ByteRange,
    signal?: AbortSignal,
  ): Promise<Buffer> => {
    const body = await source.open(key(digest), range, signal === undefined ? {} : { signal })
    assert.ok(body !== undefined, 'the blob is there')
    return collect(body)
  }

  describe(`${name} as a blob source`, () => {
    check('it has a name', async ({ source }) => {
      assert.match(source.name, /^[a-z][a-z0-9-]*(?::.+)?$/)
      await Promise.resolve()
    })

    check('stat tells the size of what is there, the empty blob included', async ({ key, source }) => {
      for (const [digest, bytes] of blobs) assert.equal((await source.stat(key(digest)))?.size, bytes.length)
    })

    check('stat and open answer undefined for what is not there', async ({ key, source }) => {
      assert.equal(await source.stat(key(UNKNOWN)), undefined)
      assert.equal(await source.open(key(UNKNOWN), { start: 0, end: 1 }), undefined)
    })

    check('every kind of range is exact', async subject => {
      const ranges: [number, number][] = [
        [0, SIZE],
        [0, 1],
        [SIZE - 1, SIZE],
        [1, SIZE],
        [0, SIZE - 1],
        [BLOCK_BYTES, 2 * BLOCK_BYTES],
        [BLOCK_BYTES - 1, BLOCK_BYTES + 1],
        [BLOCK_BYTES + 17, 2 * BLOCK_BYTES + 18],
        [3 * BLOCK_BYTES, SIZE],
      ]
      for (const [start, end] of ranges) {
        const bytes = await read(subject, large, { start, end })
        assert.ok(bytes.equals(LARGE.subarray(start, end)), `${start}-${end}: ${bytes.length} bytes`)
      }
      assert.deepEqual(await read(subject, small, { start: 0, end: 1 }), SMALL)
    })

    check(
      'begin, where the source has it, tells the size and brings the first bytes in one',
      async ({ key, source }) => {
        if (source.begin === undefined) return
        for (const [start, end] of [
          [0, Infinity],
          [0, SIZE],
          [0, BLOCK_BYTES],
          [BLOCK_BYTES, Infinity],
          [BLOCK_BYTES, 10 * SIZE],
          [2 * SIZE, 3 * SIZE],
        ] as const) {
          const begun = await source.begin(key(large), { start, end })
          assert.equal(begun?.info.size, SIZE)
          assert.ok((await collect(begun.body)).equals(LARGE.subarray(start, end)), `${start}-${end}`)
          assert.equal(begun.range.end - begun.range.start, LARGE.subarray(start, end).length)
        }
        const nothing = await source.begin(key(empty), { start: 0, end: Infinity })
        assert.equal(nothing?.info.size, 0)
        assert.equal((await collect(nothing.body)).length, 0)
        assert.equal(await source.begin(key(UNKNOWN), { start: 0, end: 1 }), undefined)
      },
    )

    check('a sha512 blob is a blob like any other', async subject => {
      const bytes = await read(subject, large512, { start: 100, end: BLOCK_BYTES })
      assert.ok(bytes.equals(LARGE.subarray(100, BLOCK_BYTES)))
    })

    check('no piece is empty, and pieces belong to the receiver', async ({ key, source }) => {
      const body = await source.open(key(large), { start: 0, end: SIZE })
      assert.ok(body !== undefined)
      const kept: Uint8Array[] = []
      for await (const piece of body) {
        assert.ok(piece.length > 0)
        kept.push(piece)
      }
      assert.ok(Buffer.concat(kept).equals(LARGE))
      for (const piece of kept) piece.fill(0)
      const again = await source.open(key(large), { start: 0, end: SIZE })
      assert.ok(again !== undefined)
      assert.ok((await collect(again)).equals(LARGE))
    })

    check('many bodies can be read at once', async subject => {
      const starts = Array.from({ length: 12 }, (_, index) => index * 50_000)
      const bodies = await Promise.all(starts.map(start => read(subject, large, { start, end: start + 60_000 })))
      for (const [index, start] of starts.entries()) {
        assert.ok(bodies[index]?.equals(LARGE.subarray(start, start + 60_000)), `from ${start}`)
      }
    })

    check('a body may be left before its end, or never begun, and the source goes on working', async subject => {
      const { key, source } = subject
      for (let round = 0; round < 3; round += 1) {
        const body = await source.open(key(large), { start: 0, end: SIZE })
        assert.ok(body !== undefined)
        for await (const piece of body) {
          assert.ok(piece.length > 0)
          break
        }
        const unread = await source.open(key(large), { start: 0, end: SIZE })
        await unread?.[Symbol.asyncIterator]().return?.()
      }
      assert.ok((await read(subject, large, { start: 0, end: SIZE })).equals(LARGE))
    })

    check('a body that has ended stays ended', async ({ key, source }) => {
      const body = await source.open(key(small), { start: 0, end: 1 })
      assert.ok(body !== undefined)
      const iterator = body[Symbol.asyncIterator]()
      assert.equal((await iterator.next()).done, false)
      assert.equal((await iterator.next()).done, true)
      assert.equal((await iterator.next()).done, true)
    })

    check('a range beyond the end fails and never comes out short', async subject => {
      for (const range of [
        { start: 0, end: SIZE + 1 },
        { start: SIZE, end: SIZE + 1 },
        { start: SIZE + 10, end: SIZE + 20 },
      ]) {
        await assert.rejects(read(subject, large, range), (error: unknown) => error instanceof ShoalError)
      }
    })

    check('what is aborted before it begins throws the reason', async subject => {
      const { key, source } = subject
      const reason = new Error('left before')
      const signal = AbortSignal.abort(reason)
      await assert.rejects(source.stat(key(large), { signal }), thrown => thrown === reason)
      await assert.rejects(source.open(key(large), { start: 0, end: 1 }, { signal }), thrown => thrown === reason)
    })

    check('a body that is aborted while it is read throws the reason', async ({ key, source }) => {
      const controller = new AbortController()
      const reason = new Error('left in the middle')
      const body = await source.open(key(large), { start: 0, end: SIZE }, { signal: controller.signal })
      assert.ok(body !== undefined)
      let length = 0
      const reading = async (): Promise<void> => {
        for await (const piece of body) {
          length += piece.length
          controller.abort(reason)
        }
      }
      await assert.rejects(reading(), thrown => thrown === reason)
      assert.ok(length < SIZE)
    })
  })
}

async function collect(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  for await (const piece of body) pieces.push(piece)
  return Buffer.concat(pieces)
}
