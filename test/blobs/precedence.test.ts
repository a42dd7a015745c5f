import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, test } from 'node:test'
import { Precedence } from '../../src/blobs/precedence.ts'
import { CHUNK_BYTES, systemClock, type Clock, type Digest } from '../../src/core/index.ts'
import { Rig } from '../support/rig.ts'
import { until } from '../support/until.ts'

const MIB = 1024 * 1024

describe('Precedence', () => {
  test('nobody gives way to nobody', () => {
    assert.ok(new Precedence().isFree(0))
  })

  test('others give way while a reader waits, and for a moment afterwards', () => {
    const precedence = new Precedence()
    precedence.beginWait()
    precedence.beginWait()
    assert.ok(!precedence.isFree(1_000_000))
    precedence.endWait(1_000_000)
    assert.ok(!precedence.isFree(2_000_000))
    precedence.endWait(2_000_000)
    assert.ok(!precedence.isFree(2_000_050))
    assert.ok(precedence.isFree(2_000_100))
  })
})

test('what is not urgent begins eight at a time, in turn, and who does not ask again loses its place', () => {
  const precedence = new Precedence()
  const [first, second, third] = [{}, {}, {}]
  for (let count = 0; count < 8; count += 1) assert.ok(precedence.begin({}, 1000))
  for (const who of [first, second, third]) assert.ok(!precedence.begin(who, 1000))
  precedence.end()
  assert.ok(!precedence.begin(second, 1100))
  assert.ok(precedence.begin(first, 1100))
  // It has had its turn: now it is behind the others.
  precedence.end()
  assert.ok(!precedence.begin(first, 1200))
  assert.ok(!precedence.begin(third, 1600))
  assert.ok(precedence.begin(third, 1700))
})

/** A rig whose clock stands still until it is told otherwise, and with a reader that waits for its first byte until released. */
async function openWaiting() {
  const time = { now: 1_000_000, looks: 0 }
  const clock: Clock = {
    ...systemClock,
    now: () => time.now,
    sleep: async (_ms, options) => {
      await systemClock.sleep(1, options)
      time.looks += 1
    },
  }
  const rig = await Rig.open({ clock })
  const content = randomBytes(MIB)
  const urgent = rig.origin.add(content)
  let release: () => void = () => undefined
  const released = new Promise<void>(resolve => (release = resolve))
  const holding: Digest[] = []
  const open = rig.origin.open.bind(rig.origin)
  rig.origin.open = async (key, range, options) => {
    if (key.digest === urgent) {
      holding.push(key.digest)
      await released
    }
    return open(key, range, options)
  }
  const reading = rig.read(urgent, 0, content.length)
  // It fails in the test that closes the reader, before anybody looks.
  reading.catch(() => undefined)
  await until(() => holding.length > 0)
  return {
    rig,
    time,
    /** What gives way has been looked at several times more. */
    async looks(): Promise<void> {
      const enough = time.looks + 3
      await until(() => time.looks >= enough)
    },
    /** Lets the reader have its bytes. */
    async finish(): Promise<void> {
      release()
      assert.ok((await reading).equals(content))
    },
    [Symbol.asyncDispose]: async () => {
      release()
      await reading.catch(() => undefined)
      await rig.close()
    },
  }
}

describe('low urgency', () => {
  test('a read that is not urgent waits while another blob of the registry is waited for, and goes on afterwards', async () => {
    await using waiting = await openWaiting()
    const { rig, time } = waiting
    const content = randomBytes(3 * MIB)
    const digest = rig.origin.add(content)
    const stream = await rig.reader.stream(rig.key(digest), { start: 0, end: content.length }, { urgency: 'prefetch' })
    const pieces: Uint8Array[] = []
    const reading = (async () => {
      for await (const piece of stream!) pieces.push(piece)
    })()
    await waiting.looks()
    assert.equal(rig.origin.sentBytes.get(digest), undefined)
    await waiting.finish()
    time.now += 100
    await reading
    assert.ok(Buffer.concat(pieces).equals(content))
  })

  test('an urgent read does not', async () => {
    await using waiting = await openWaiting()
    const content = randomBytes(3 * MIB)
    const digest = waiting.rig.origin.add(content)
    assert.ok((await waiting.rig.read(digest, 0, content.length)).equals(content))
  })

  test('whoever gives way gets a segment after two seconds, and the next after two more', async () => {
    await using waiting = await openWaiting()
    const { rig, time } = waiting
    const size = 3 * CHUNK_BYTES
    const digest = rig.origin.add(randomBytes(size))
    await rig.reader.prefetch(rig.key(digest), [{ start: 0, end: size }])
    for (let chunk = 1; chunk <= 3; chunk += 1) {
      time.now += 1999
      await waiting.looks()
      assert.equal(rig.origin.sentBytes.get(digest) ?? 0, (chunk - 1) * CHUNK_BYTES)
      time.now += 1
      await until(() => rig.origin.sentBytes.get(digest) === chunk * CHUNK_BYTES)
      await until(async () => (await rig.metric('shoal_fetches_total')) === chunk)
    }
    await until(() => rig.store.find(digest)?.state === 'complete')
  })

  test('without anyone waiting it takes one connection at a time, and short requests', async () => {
    await using rig = await Rig.open()
    const size = 4 * CHUNK_BYTES + 17
    const digest = rig.origin.add(randomBytes(size))
    let most = 0
    let now = 0
    const open = rig.origin.open.bind(rig.origin)
    rig.origin.open = async (key, range, options) => {
      const body = await open(key, range, options)
      return (async function* () {
        most = Math.max(most, (now += 1))
        yield* body!
        now -= 1
      })()
    }
    await rig.reader.prefetch(rig.key(digest), [{ start: 0, end: size }])
    await until(async () => (await rig.metric('shoal_fills')) === 0)
    await until(() => rig.store.find(digest)?.state === 'complete')
    assert.equal(most, 1)
    assert.ok(rig.origin.opened.every(({ start, end }) => end - start <= CHUNK_BYTES))
  })

  test('the same prefetch, asked for again and again, is one', async () => {
    await using rig = await Rig.open()
    const size = 3 * CHUNK_BYTES
    const digest = rig.origin.add(randomBytes(size))
    let most = 0
    let now = 0
    rig.origin.beforePiece = ({ offset }) => {
      if (offset % CHUNK_BYTES === 0) most = Math.max(most, (now += 1))
      if (offset % CHUNK_BYTES === CHUNK_BYTES - 64 * 1024) now -= 1
    }
    await Promise.all(Array.from({ length: 10 }, () => rig.reader.prefetch(rig.key(digest), [{ start: 0, end: size }])))
    await until(async () => (await rig.metric('shoal_fills')) === 0)
    assert.equal(rig.origin.sentBytes.get(digest), size)
    assert.equal(most, 1)
  })

  test('any number of prefetches leave connections for who comes', async () => {
    await using rig = await Rig.open()
    const blobs = Array.from({ length: 40 }, () => randomBytes(MIB)).map(bytes => ({
      bytes,
      digest: rig.origin.add(bytes),
    }))
    const content = randomBytes(MIB)
    const urgent = rig.origin.add(content)
    let release: () => void = () => undefined
    const released = new Promise<void>(resolve => (release = resolve))
    const open = rig.origin.open.bind(rig.origin)
    let [underWay, most] = [0, 0]
    rig.origin.open = async (key, range, options) => {
      underWay += 1
      most = Math.max(most, underWay)
      if (key.digest !== urgent) await released
      underWay -= 1
      return open(key, range, options)
    }
    for (const { bytes, digest } of blobs) await rig.reader.prefetch(rig.key(digest), [{ start: 0, end: bytes.length }])
    assert.ok((await rig.read(urgent, 0, content.length)).equals(content))
    release()
    await until(() => blobs.every(({ digest }) => rig.store.find(digest)?.state === 'complete'))
    assert.ok(most <= 9, `${most} requests at one time`)
    await until(async () => (await rig.metric('shoal_fills')) === 0)
  })

  test('a prefetch that is done holds nothing', async () => {
    await using rig = await Rig.open()
    const digest = rig.origin.add(randomBytes(2 * CHUNK_BYTES))
    await rig.reader.prefetch(rig.key(digest), [{ start: 0, end: 2 * CHUNK_BYTES }])
    await until(() => rig.store.find(digest)?.state === 'complete')
    await until(async () => (await rig.metric('shoal_fills')) === 0)
    assert.equal((await rig.store.collect(0)).blobs, 1)
  })

  test('what gives way ends when the blob reader closes', async () => {
    const waiting = await openWaiting()
    const { rig } = waiting
    const digest = rig.origin.add(randomBytes(3 * MIB))
    await rig.reader.prefetch(rig.key(digest), [{ start: 0, end: 3 * MIB }])
    assert.equal(await rig.metric('shoal_fills'), 2)
    await rig.reader.close()
    // The other one is still asking its origin.
    assert.equal(await rig.metric('shoal_fills'), 1)
    assert.equal(rig.origin.sentBytes.get(digest), undefined)
    await waiting[Symbol.asyncDispose]()
  })

  test('the first bytes of an unknown blob do not come along with its size while somebody waits', async () => {
    await using waiting = await openWaiting()
    const { rig } = waiting
    rig.origin.begin = rig.origin.beginHere
    const digest = rig.origin.add(randomBytes(1000))
    const range = { start: 0, end: 1000 }
    const low = await rig.reader.stat(rig.key(digest), { first: range, urgency: 'prefetch' })
    assert.equal(low?.begun, false)
    const other = rig.origin.add(randomBytes(1000))
    const high = await rig.reader.stat(rig.key(other), { first: range })
    assert.equal(high?.begun, true)
  })
})
