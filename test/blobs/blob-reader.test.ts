import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, test } from 'node:test'
import { BLOCK_BYTES, CHUNK_BYTES, MAX_BLOB_BYTES, ShoalError, systemClock, type Digest } from '../../src/core/index.ts'
import { FakeOrigin, digestOf } from '../support/fake-origin.ts'
import { Rig } from '../support/rig.ts'
import { until } from '../support/until.ts'

const MIB = 1024 * 1024
const UNREACHABLE = new ShoalError('ERR_UPSTREAM_TRANSPORT', 'the origin is gone')

/** Lets pieces through only up to `limit` bytes into the blob, until opened. */
function gate(origin: FakeOrigin, limit: number): { open(): void; readonly waiting: number } {
  let release: () => void = () => undefined
  const opened = new Promise<void>(resolve => (release = resolve))
  const state = { waiting: 0, open: () => release() }
  origin.beforePiece = async ({ offset }, signal) => {
    if (offset < limit) return
    state.waiting += 1
    const aborted = new Promise<void>(resolve => signal?.addEventListener('abort', () => resolve(), { once: true }))
    await Promise.race([opened, aborted])
    state.waiting -= 1
  }
  return state
}

describe('BlobReader', () => {
  test('a cold blob comes from the origin, a warm one does not', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(5 * MIB + 123)
    const digest = rig.origin.add(content)
    assert.ok((await rig.read(digest, 0, content.length)).equals(content))
    assert.equal(rig.origin.sentBytes.get(digest), content.length)
    assert.ok((await rig.read(digest, 0, content.length)).equals(content))
    assert.ok((await rig.read(digest, 1000, 300_000)).equals(content.subarray(1000, 300_000)))
    assert.equal(rig.origin.sentBytes.get(digest), content.length)
  })

  test('ten readers of one cold blob cost the origin one copy', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(20 * MIB)
    const digest = rig.origin.add(content)
    const copies = await Promise.all(Array.from({ length: 10 }, () => rig.read(digest, 0, content.length)))
    for (const copy of copies) assert.ok(copy.equals(content))
    assert.equal(rig.origin.sentBytes.get(digest), content.length)
    assert.equal(rig.origin.stats.length, 1)
  })

  test('a cold range in the middle costs that range rounded to blocks, and no more', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(40 * MIB)
    const digest = rig.origin.add(content)
    const start = 17 * MIB + 5
    const piece = await rig.read(digest, start, start + 300_000)
    assert.ok(piece.equals(content.subarray(start, start + 300_000)))
    const first = Math.floor(start / BLOCK_BYTES)
    const end = Math.ceil((start + 300_000) / BLOCK_BYTES)
    assert.deepEqual(rig.origin.opened, [{ start: first * BLOCK_BYTES, end: end * BLOCK_BYTES }])
    await until(async () => (await rig.metric('shoal_fills')) === 0)
    assert.equal(rig.origin.sentBytes.get(digest), (end - first) * BLOCK_BYTES)
  })

  test('bytes reach a reader before their block is complete', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(BLOCK_BYTES)
    const digest = rig.origin.add(content)
    const held = gate(rig.origin, 64 * 1024)
    const stream = await rig.reader.stream(rig.key(digest), { start: 0, end: content.length })
    const pieces = stream![Symbol.asyncIterator]()
    const first = await pieces.next()
    assert.ok(Buffer.from(first.value as Uint8Array).equals(content.subarray(0, 64 * 1024)))
    held.open()
    const rest: Uint8Array[] = [first.value as Uint8Array]
    for (let next = await pieces.next(); next.done !== true; next = await pieces.next()) rest.push(next.value)
    assert.ok(Buffer.concat(rest).equals(content))
  })

  test('a reader that leaves early does not stop the others', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(12 * MIB)
    const digest = rig.origin.add(content)
    const held = gate(rig.origin, MIB)
    const leaver = new AbortController()
    const left = rig.read(digest, 0, content.length, { signal: leaver.signal })
    const stays = rig.read(digest, 0, content.length)
    await until(() => held.waiting > 0)
    leaver.abort(new Error('leaving'))
    await assert.rejects(left, { message: 'leaving' })
    held.open()
    assert.ok((await stays).equals(content))
    assert.equal(rig.origin.sentBytes.get(digest), content.length)
  })

  test('when the last reader leaves, the fill stops', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(32 * MIB)
    const digest = rig.origin.add(content)
    const held = gate(rig.origin, 2 * MIB)
    const leaver = new AbortController()
    const left = rig.read(digest, 0, content.length, { signal: leaver.signal })
    await until(() => held.waiting > 0)
    leaver.abort(new Error('leaving'))
    await assert.rejects(left, { message: 'leaving' })
    await until(async () => (await rig.metric('shoal_fills')) === 0)
    held.open()
    assert.ok((rig.origin.sentBytes.get(digest) ?? 0) <= 2 * MIB)
  })

  test('when the last reader leaves and little is missing, the blob is completed', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(8 * MIB)
    const digest = rig.origin.add(content)
    const held = gate(rig.origin, content.length - BLOCK_BYTES)
    const leaver = new AbortController()
    const left = rig.read(digest, 0, content.length, { signal: leaver.signal })
    await until(() => held.waiting > 0)
    leaver.abort(new Error('leaving'))
    await assert.rejects(left, { message: 'leaving' })
    held.open()
    await until(() => rig.store.find(digest)?.state === 'complete')
    assert.equal(rig.origin.sentBytes.get(digest), content.length)
  })

  test('a source that dies half-way is followed by the next, from the next byte on', async () => {
    const dying = new FakeOrigin('dying')
    await using rig = await Rig.open({ sources: [dying] })
    const content = randomBytes(3 * MIB)
    const digest = rig.origin.add(content)
    dying.add(content)
    dying.beforePiece = ({ offset }) => {
      if (offset >= MIB + 128 * 1024) throw UNREACHABLE
    }
    assert.ok((await rig.read(digest, 0, content.length)).equals(content))
    assert.equal(dying.sentBytes.get(digest), MIB + 128 * 1024)
    assert.equal(rig.origin.sentBytes.get(digest), content.length - MIB - 128 * 1024)
    assert.equal(await rig.metric('shoal_source_failures_total'), 1)
  })

  test('a source that does not have the blob is passed over silently', async () => {
    await using rig = await Rig.open({ sources: [new FakeOrigin('empty')] })
    const content = randomBytes(1000)
    const digest = rig.origin.add(content)
    assert.ok((await rig.read(digest, 0, content.length)).equals(content))
    assert.equal(await rig.metric('shoal_source_failures_total'), 0)
  })

  test("a blob that nobody has is absent, and a failing origin's error reaches the reader", async () => {
    await using rig = await Rig.open()
    assert.equal(await rig.reader.stat(rig.key(digestOf(Buffer.from('nothing')))), undefined)
    const digest = rig.origin.add(randomBytes(1000))
    rig.origin.beforeAnswer = () => {
      throw UNREACHABLE
    }
    await assert.rejects(rig.reader.stat(rig.key(digest)), { code: 'ERR_UPSTREAM_TRANSPORT' })
    rig.origin.beforeAnswer = call => {
      if (call === 'open') throw UNREACHABLE
    }
    await assert.rejects(rig.read(digest, 0, 1000), { code: 'ERR_UPSTREAM_TRANSPORT' })
  })

  test('a source that sends too few or too many bytes is not believed', async () => {
    for (const wrong of [-1, 1]) {
      const liar = new FakeOrigin('liar')
      await using rig = await Rig.open({ sources: [liar] })
      const content = randomBytes(BLOCK_BYTES)
      const digest = rig.origin.add(content)
      liar.add(content)
      liar.open = () => {
        const pieces = (async function* () {
          yield await Promise.resolve(Buffer.alloc(content.length + wrong))
        })()
        return Promise.resolve(pieces)
      }
      const bytes = await rig.read(digest, 0, content.length)
      assert.equal(bytes.length, content.length)
      assert.equal(await rig.metric('shoal_source_failures_total'), 1)
    }
  })

  test('ranges of one blob may be read in any order and overlap, and are always its bytes', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(9 * MIB + 17)
    const digest = rig.origin.add(content)
    const reads = Array.from({ length: 60 }, (_, index) => {
      const start = (index * 7_654_321) % content.length
      const end = Math.min(content.length, start + ((index * 987_653) % (3 * MIB)) + 1)
      return rig
        .read(digest, start, end)
        .then(bytes => assert.ok(bytes.equals(content.subarray(start, end)), `${start}-${end}`))
    })
    await Promise.all(reads)
    assert.ok((rig.origin.sentBytes.get(digest) ?? 0) <= content.length)
  })

  test('a sequential reader finds what follows already fetched', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(16 * MIB)
    const digest = rig.origin.add(content)
    await rig.read(digest, 0, MIB)
    assert.equal(rig.origin.sentBytes.get(digest), MIB)
    await rig.read(digest, MIB, 2 * MIB)
    await until(() => (rig.origin.sentBytes.get(digest) ?? 0) >= 3 * MIB)
    const before = rig.origin.opened.length
    assert.ok((await rig.read(digest, 2 * MIB, 3 * MIB)).equals(content.subarray(2 * MIB, 3 * MIB)))
    const onDemand = rig.origin.opened.slice(before).filter(range => range.start < 3 * MIB)
    assert.deepEqual(onDemand, [])
  })

  test('a source that can is asked once for the size and the first bytes, also by ten readers', async () => {
    await using rig = await Rig.open()
    rig.origin.begin = rig.origin.beginHere
    const content = randomBytes(3 * MIB)
    const digest = rig.origin.add(content)
    const copies = await Promise.all(Array.from({ length: 10 }, () => rig.read(digest, 0, content.length)))
    for (const copy of copies) assert.ok(copy.equals(content))
    assert.deepEqual(rig.origin.stats, [])
    assert.deepEqual(rig.origin.opened, [{ start: 0, end: content.length }])
    const other = randomBytes(9 * MIB)
    const middle = rig.origin.add(other)
    assert.ok((await rig.read(middle, 5 * MIB, 5 * MIB + 10)).equals(other.subarray(5 * MIB, 5 * MIB + 10)))
    assert.deepEqual(rig.origin.opened.slice(1), [{ start: 5 * MIB, end: 5 * MIB + BLOCK_BYTES }])
  })

  test('first bytes that nobody reads after all are cut off, and the next reader gets them', async () => {
    await using rig = await Rig.open()
    rig.origin.begin = rig.origin.beginHere
    const content = randomBytes(3 * MIB)
    const digest = rig.origin.add(content)
    const held = gate(rig.origin, MIB)
    const leaver = new AbortController()
    const left = rig.read(digest, 0, content.length, { signal: leaver.signal })
    await until(() => held.waiting > 0)
    leaver.abort(new Error('leaving'))
    await assert.rejects(left, { message: 'leaving' })
    await until(async () => (await rig.metric('shoal_fills')) === 0)
    held.open()
    assert.ok((await rig.read(digest, 0, content.length)).equals(content))
  })

  test('first bytes of a blob that cannot be are cut off at once', async () => {
    await using rig = await Rig.open()
    const signals: (AbortSignal | undefined)[] = []
    rig.origin.begin = async (key, range, options) => {
      signals.push(options?.signal)
      const begun = await rig.origin.beginHere(key, range, options)
      return begun === undefined ? undefined : { ...begun, info: { size: MAX_BLOB_BYTES + 1 } }
    }
    const digest = rig.origin.add(randomBytes(MIB))
    await assert.rejects(rig.read(digest, 0, MIB), { code: 'ERR_LIMIT_EXCEEDED' })
    assert.deepEqual(
      signals.map(signal => signal?.aborted),
      [true],
    )
  })

  test('first bytes that break off are followed by the rest from the next byte on', async () => {
    await using rig = await Rig.open()
    rig.origin.begin = rig.origin.beginHere
    const content = randomBytes(2 * MIB)
    const digest = rig.origin.add(content)
    let broken = false
    rig.origin.beforePiece = ({ offset }) => {
      if (offset < MIB || broken) return
      broken = true
      throw UNREACHABLE
    }
    assert.ok((await rig.read(digest, 0, content.length)).equals(content))
    assert.equal(rig.origin.sentBytes.get(digest), content.length)
  })

  test('from a source that ignores Range a blob is read once from its beginning, whatever is asked of it', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(24 * MIB)
    const digest = rig.origin.add(content)
    rig.origin.readsWhole = () => true
    const middle = rig.read(digest, 10 * MIB, 10 * MIB + 1000)
    const all = rig.read(digest, 0, content.length)
    assert.ok((await middle).equals(content.subarray(10 * MIB, 10 * MIB + 1000)))
    assert.ok((await all).equals(content))
    assert.deepEqual(rig.origin.opened, [{ start: 0, end: content.length }])
  })

  test('a fetch far ahead that fails does not cut a reader whose next bytes are on their way', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(24 * MIB)
    const digest = rig.origin.add(content)
    let refused = 0
    rig.origin.beforePiece = ({ range }) => {
      if (range.start === 0 || refused > 0) return
      refused += 1
      throw UNREACHABLE
    }
    assert.ok((await rig.read(digest, 0, content.length)).equals(content))
    assert.equal(refused, 1)
  })

  test('prefetch of an empty blob leaves nothing behind', async () => {
    await using rig = await Rig.open()
    const digest = rig.origin.add(Buffer.alloc(0))
    await rig.reader.prefetch(rig.key(digest), [{ start: 0, end: 0 }])
    assert.equal(await rig.metric('shoal_fills'), 0)
  })

  test('prefetch brings whole chunks without anyone reading them', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(3 * CHUNK_BYTES)
    const digest = rig.origin.add(content)
    await rig.reader.prefetch(rig.key(digest), [{ start: CHUNK_BYTES + 1, end: CHUNK_BYTES + 2 }])
    await until(() => rig.store.find(digest)?.missing({ first: 16, end: 32 }).length === 0)
    assert.equal(rig.origin.sentBytes.get(digest), CHUNK_BYTES)
  })

  test('readInto fills a target, and stops at the end of the blob', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(MIB)
    const digest = rig.origin.add(content)
    const target = Buffer.alloc(1000)
    assert.equal(await rig.reader.readInto(rig.key(digest), content.length - 600, target), 600)
    assert.ok(target.subarray(0, 600).equals(content.subarray(-600)))
    assert.equal(await rig.reader.readInto(rig.key(digest), content.length, target), 0)
    assert.equal(await rig.reader.readInto(rig.key(digest), 5, target), 1000)
    assert.ok(target.equals(content.subarray(5, 1005)))
  })

  test('close ends the streams under way and refuses new ones', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(4 * MIB)
    const digest = rig.origin.add(content)
    const held = gate(rig.origin, MIB)
    const reading = rig.read(digest, 0, content.length)
    await until(() => held.waiting > 0)
    await Promise.all([assert.rejects(reading, { code: 'ERR_CLOSED' }), rig.reader.close()])
    await assert.rejects(rig.reader.stat(rig.key(digest)), { code: 'ERR_CLOSED' })
    assert.throws(() => rig.reader.lookup(rig.key(digest)), { code: 'ERR_CLOSED' })
  })
})

describe('BlobReader with a store that takes nothing', () => {
  test('blobs stream through, once for readers at the same time, and nothing is kept', async () => {
    await using rig = await Rig.open({ maxBytes: 1 })
    const content = randomBytes(24 * MIB)
    const digest = rig.origin.add(content)
    // The small store's hard limit lies a little above its soft one: fill that first.
    const filler = rig.origin.add(randomBytes(20 * MIB))
    const hold = (await rig.reader.stat(rig.key(filler))) && rig.store.find(filler)?.hold()
    await rig.read(filler, 0, 20 * MIB)
    const copies = await Promise.all([rig.read(digest, 0, content.length), rig.read(digest, 0, content.length)])
    for (const copy of copies) assert.ok(copy.equals(content))
    assert.ok((rig.origin.sentBytes.get(digest) ?? 0) < 1.5 * content.length)
    assert.ok((await rig.metric('shoal_unstored_bytes_total')) > 0)
    hold?.[Symbol.dispose]()
  })

  test('a slow reader slows its source', async () => {
    await using rig = await Rig.open({ maxBytes: 1 })
    const filler = rig.origin.add(randomBytes(20 * MIB))
    const hold = (await rig.reader.stat(rig.key(filler))) && rig.store.find(filler)?.hold()
    await rig.read(filler, 0, 20 * MIB)
    const content = randomBytes(40 * MIB)
    const digest = rig.origin.add(content)
    const stream = await rig.reader.stream(rig.key(digest), { start: 0, end: content.length })
    const received: Uint8Array[] = []
    for await (const piece of stream!) {
      received.push(piece)
      // A turn of the event loop: time enough for everything that is allowed to run ahead.
      await new Promise(resolve => setImmediate(resolve))
      const position = received.reduce((sum, { length }) => sum + length, 0)
      assert.ok((rig.origin.sentBytes.get(digest) ?? 0) - position <= 24 * MIB)
    }
    assert.ok(Buffer.concat(received).equals(content))
    hold?.[Symbol.dispose]()
  })
})

/** A rig whose store is at its hard limit, with nothing that could be evicted. */
async function openFull(): Promise<Rig> {
  const rig = await Rig.open({ maxBytes: 1 })
  const filler = rig.origin.add(randomBytes(20 * MIB))
  await rig.reader.stat(rig.key(filler))
  rig.store.find(filler)?.hold()
  await rig.read(filler, 0, 20 * MIB)
  await until(async () => (await rig.metric('shoal_fills')) === 0)
  return rig
}

describe('BlobReader, when nothing is stored', () => {
  test('read-ahead ends, and nothing is fetched that nobody reads', async () => {
    await using rig = await openFull()
    const content = randomBytes(16 * MIB)
    const digest = rig.origin.add(content)
    for (let index = 0; index < 3; index += 1) await rig.read(digest, index * MIB, (index + 1) * MIB)
    await until(async () => (await rig.metric('shoal_fills')) === 0)
    assert.ok((rig.origin.sentBytes.get(digest) ?? 0) <= 4 * MIB, `${rig.origin.sentBytes.get(digest)} bytes sent`)
  })

  test('a stalled reader beside a fast one costs bounded memory, and gets its bytes in the end', async () => {
    await using rig = await openFull()
    const content = randomBytes(64 * MIB)
    const digest = rig.origin.add(content)
    const slow = (await rig.reader.stream(rig.key(digest), { start: 0, end: content.length }))![Symbol.asyncIterator]()
    const first = await slow.next()
    const before = process.memoryUsage().arrayBuffers
    let most = 0
    let position = 0
    for await (const piece of (await rig.reader.stream(rig.key(digest), { start: 0, end: content.length }))!) {
      position += piece.length
      most = Math.max(most, process.memoryUsage().arrayBuffers - before)
    }
    assert.equal(position, content.length)
    assert.ok(most < 48 * MIB, `${most} bytes held`)
    const rest = [first.value as Uint8Array]
    for (let next = await slow.next(); next.done !== true; next = await slow.next()) rest.push(next.value)
    assert.ok(Buffer.concat(rest).equals(content))
  })

  test('a newcomer does not wait for a slow segment that has passed its bytes', async () => {
    await using rig = await openFull()
    const content = randomBytes(4 * MIB)
    const digest = rig.origin.add(content)
    let held: (() => void) | undefined
    let opened = false
    rig.origin.beforePiece = async ({ range, offset }) => {
      if (!opened && range.start === 0 && range.end > MIB && offset >= 2 * MIB)
        await new Promise<void>(resolve => (held = resolve))
    }
    const all = rig.read(digest, 0, content.length)
    await until(() => held !== undefined)
    assert.ok((await rig.read(digest, 0, 1000)).equals(content.subarray(0, 1000)))
    opened = true
    held?.()
    assert.ok((await all).equals(content))
  })
})

describe('BlobReader and blobs that are not what they should be', () => {
  test('bytes that do not match the digest are never trusted: the blob goes, and the next reader gets nothing unproven', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(2 * MIB)
    const digest = digestOf(content)
    rig.origin.add(randomBytes(2 * MIB), digest)
    // The first reader may get the wrong bytes, as from the origin itself; the digest tells it.
    await rig.read(digest, 0, content.length).catch(() => undefined)
    await until(() => rig.store.find(digest) === undefined)
    assert.equal(rig.reader.lookup(rig.key(digest)), undefined)
    await assert.rejects(rig.read(digest, 0, 10), { code: 'ERR_DIGEST_MISMATCH' })
    await assert.rejects(rig.reader.readInto(rig.key(digest), 0, Buffer.alloc(10)), { code: 'ERR_DIGEST_MISMATCH' })
    rig.origin.add(content, digest)
    assert.ok((await rig.read(digest, 0, content.length)).equals(content))
    assert.equal(rig.store.find(digest)?.state, 'complete')
  })

  test('an unproven blob of another size starts afresh, a proven one keeps its size', async () => {
    await using rig = await Rig.open()
    const content = randomBytes(2 * MIB)
    const digest = digestOf(content)
    rig.origin.add(content.subarray(0, MIB), digest)
    await rig.read(digest, 0, 1000)
    rig.origin.add(content, digest)
    const elsewhere = { ...rig.key(digest), repository: 'elsewhere' }
    assert.equal((await rig.reader.stat(elsewhere))?.size, content.length)
    assert.ok((await rig.read(digest, 0, content.length)).equals(content))
    await until(() => rig.store.find(digest)?.state === 'complete')
    rig.origin.add(content.subarray(0, MIB), digest)
    assert.equal((await rig.reader.stat({ ...elsewhere, repository: 'third' }))?.size, content.length)
  })
})

describe('who may read what', () => {
  const ALICE = 'Bearer alice'

  async function cached(rig: Rig, authorization?: string): Promise<{ digest: Digest; content: Buffer }> {
    const content = randomBytes(1000)
    const digest = rig.origin.add(content)
    await rig.read(digest, 0, 1000, authorization === undefined ? {} : { authorization })
    return { digest, content }
  }

  test('the same digest through another repository proves nothing', async () => {
    await using rig = await Rig.open()
    const { digest } = await cached(rig)
    assert.ok(rig.reader.lookup(rig.key(digest)) !== undefined)
    assert.equal(rig.reader.lookup(rig.key(digest, 'other')), undefined)
    rig.origin.beforeAnswer = () => {
      throw new ShoalError('ERR_UPSTREAM_AUTH', 'no', { details: { status: 401 } })
    }
    await assert.rejects(rig.reader.stat(rig.key(digest, 'other')), { code: 'ERR_UPSTREAM_AUTH' })
  })

  test("what one caller's credential opened is closed to a caller without it, and to another credential", async () => {
    await using rig = await Rig.open()
    rig.origin.visibility = 'private'
    rig.origin.beforeAnswer = (_call, { authorization }) => {
      if (authorization !== ALICE) throw new ShoalError('ERR_UPSTREAM_AUTH', 'no', { details: { status: 401 } })
    }
    const { digest } = await cached(rig, ALICE)
    assert.ok(rig.reader.lookup(rig.key(digest), ALICE) !== undefined)
    assert.equal(rig.reader.lookup(rig.key(digest)), undefined)
    assert.equal(rig.reader.lookup(rig.key(digest), 'Bearer mallory'), undefined)
    await assert.rejects(rig.read(digest, 0, 10), { code: 'ERR_UPSTREAM_AUTH' })
    await assert.rejects(rig.read(digest, 0, 10, { authorization: 'Bearer mallory' }), { code: 'ERR_UPSTREAM_AUTH' })
    assert.equal((await rig.read(digest, 0, 10, { authorization: ALICE })).length, 10)
  })

  test("one caller's refusal takes nothing from another", async () => {
    await using rig = await Rig.open()
    rig.origin.visibility = 'private'
    rig.origin.beforeAnswer = (_call, { authorization }) => {
      if (authorization !== ALICE) throw new ShoalError('ERR_UPSTREAM_AUTH', 'no', { details: { status: 401 } })
    }
    const { digest } = await cached(rig, ALICE)
    await assert.rejects(rig.reader.stat(rig.key(digest)), { code: 'ERR_UPSTREAM_AUTH' })
    await assert.rejects(rig.reader.stat(rig.key(digest), { authorization: 'Bearer mallory' }), {
      code: 'ERR_UPSTREAM_AUTH',
    })
    assert.ok(rig.reader.lookup(rig.key(digest), ALICE) !== undefined)
  })

  test('a private verdict ends after five minutes, and a revoked credential is then refused', async () => {
    let now = 1_000_000
    await using rig = await Rig.open({ clock: { ...systemClock, now: () => now } })
    rig.origin.visibility = 'private'
    const { digest } = await cached(rig, ALICE)
    now += 5 * 60_000 - 1
    assert.ok(rig.reader.lookup(rig.key(digest), ALICE) !== undefined)
    now += 2
    assert.equal(rig.reader.lookup(rig.key(digest), ALICE), undefined)
    rig.origin.beforeAnswer = () => {
      throw new ShoalError('ERR_UPSTREAM_AUTH', 'revoked', { details: { status: 401 } })
    }
    await assert.rejects(rig.read(digest, 0, 10, { authorization: ALICE }), { code: 'ERR_UPSTREAM_AUTH' })
  })

  test('a private verdict is not extended while the origin is down', async () => {
    let now = 1_000_000
    await using rig = await Rig.open({ clock: { ...systemClock, now: () => now } })
    rig.origin.visibility = 'private'
    const { digest } = await cached(rig, ALICE)
    now += 6 * 60_000
    rig.origin.beforeAnswer = () => {
      throw UNREACHABLE
    }
    await assert.rejects(rig.read(digest, 0, 10, { authorization: ALICE }), { code: 'ERR_UPSTREAM_TRANSPORT' })
  })

  test('a public proof ends after an hour, but outlives an origin that cannot be asked', async () => {
    let now = 1_000_000
    await using rig = await Rig.open({ clock: { ...systemClock, now: () => now } })
    rig.origin.visibility = 'public'
    const { digest, content } = await cached(rig)
    now += 61 * 60_000
    assert.equal(rig.reader.lookup(rig.key(digest)), undefined)
    rig.origin.beforeAnswer = () => {
      throw UNREACHABLE
    }
    assert.ok((await rig.read(digest, 0, 1000)).equals(content))
    assert.equal(await rig.metric('shoal_stale_answers_total'), 1)
    const asked = rig.origin.stats.length
    assert.ok((await rig.read(digest, 0, 1000)).equals(content), 'believed for a while without asking again')
    assert.equal(rig.origin.stats.length, asked)
  })

  test('a public proof ends at once when the origin says no', async () => {
    let now = 1_000_000
    await using rig = await Rig.open({ clock: { ...systemClock, now: () => now } })
    rig.origin.visibility = 'public'
    const { digest } = await cached(rig)
    now += 61 * 60_000
    rig.origin.beforeAnswer = () => {
      throw new ShoalError('ERR_UPSTREAM_AUTH', 'now private', { details: { status: 401 } })
    }
    await assert.rejects(rig.read(digest, 0, 10), { code: 'ERR_UPSTREAM_AUTH' })
    rig.origin.beforeAnswer = () => {
      throw UNREACHABLE
    }
    await assert.rejects(rig.read(digest, 0, 10), { code: 'ERR_UPSTREAM_TRANSPORT' })
  })
})
