import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { firstAnswer } from '../../src/blobs/sources.ts'
import { ShoalError, errorCode, systemClock, type BlobSource } from '../../src/core/index.ts'
import { FakeOrigin, digestOf } from '../support/fake-origin.ts'
import { Rig } from '../support/rig.ts'
import { until } from '../support/until.ts'

const MIB = 1024 * 1024
const UNREACHABLE = new ShoalError('ERR_UPSTREAM_TRANSPORT', 'gone')
const REFUSED = new ShoalError('ERR_UPSTREAM_AUTH', 'no', { details: { status: 401 } })
const ABSENT = digestOf(Buffer.from('nobody has this'))

/** A mirror that fails whatever is asked of it. */
function failing(error: Error = UNREACHABLE): FakeOrigin {
  const source = new FakeOrigin('mirror')
  source.beforeAnswer = () => {
    throw error
  }
  return source
}

/** Down and known to be: it is not asked, and has nothing. */
const skipped: BlobSource = {
  name: 'skipped',
  stat: () => Promise.resolve(undefined),
  open: () => Promise.resolve(undefined),
}

describe('firstAnswer', () => {
  test('the first answer, or what the last one said; every failure is told', async () => {
    const outcome = fc.constantFrom('answer', 'absent', 'failed')
    await fc.assert(
      fc.asyncProperty(fc.array(outcome), async outcomes => {
        const told: number[] = []
        const result = await firstAnswer(
          [...outcomes.entries()],
          ([index, what]) => {
            if (what === 'failed') return Promise.reject(new Error(String(index)))
            return Promise.resolve(what === 'answer' ? index : undefined)
          },
          ([index]) => void told.push(index),
        ).catch((error: unknown) => (error as Error).message)
        const first = outcomes.indexOf('answer')
        const last = outcomes.length - 1
        assert.equal(result, first >= 0 ? first : outcomes[last] === 'failed' ? String(last) : undefined)
        const asked = first === -1 ? outcomes : outcomes.slice(0, first)
        assert.deepEqual(
          told,
          [...asked.keys()].filter(index => asked[index] === 'failed'),
        )
      }),
    )
  })
})

describe("the origin's word is final", () => {
  test('what the origin does not have is absent, whatever happened at the mirrors', async () => {
    for (const mirrors of [[failing()], [failing(REFUSED)], [failing(), skipped], [skipped, failing()]]) {
      await using rig = await Rig.open({ sources: mirrors })
      assert.equal(await rig.reader.stat(rig.key(ABSENT)), undefined)
    }
  })

  test("the origin's refusal and the origin's failure go before a mirror's", async () => {
    for (const [mirror, origin] of [
      [UNREACHABLE, REFUSED],
      [REFUSED, UNREACHABLE],
    ] as const) {
      await using rig = await Rig.open({ sources: [failing(mirror), skipped] })
      rig.origin.beforeAnswer = () => {
        throw origin
      }
      await assert.rejects(rig.reader.stat(rig.key(ABSENT)), { code: errorCode(origin) })
    }
  })

  test('a mirror that does not have it, and an origin that cannot be asked, is no absence', async () => {
    await using rig = await Rig.open({ sources: [skipped, new FakeOrigin('empty')] })
    rig.origin.beforeAnswer = () => {
      throw UNREACHABLE
    }
    await assert.rejects(rig.reader.stat(rig.key(ABSENT)), { code: 'ERR_UPSTREAM_TRANSPORT' })
  })

  test("a mirror's refusal takes away no proof, the origin's does", async () => {
    const mirror = new FakeOrigin('mirror')
    const content = randomBytes(1000)
    const digest = mirror.add(content)
    let now = 1_000_000
    await using rig = await Rig.open({ sources: [mirror], clock: { ...systemClock, now: () => now } })
    await rig.read(digest, 0, 1000)
    now += 61 * 60_000
    mirror.beforeAnswer = () => {
      throw REFUSED
    }
    rig.origin.beforeAnswer = () => {
      throw UNREACHABLE
    }
    assert.ok((await rig.read(digest, 0, 1000)).equals(content), 'served on the earlier proof')
    now += 60_000
    rig.origin.beforeAnswer = () => {
      throw REFUSED
    }
    await assert.rejects(rig.read(digest, 0, 1000), { code: 'ERR_UPSTREAM_AUTH' })
  })

  test('while a blob is being fetched: absent at the origin is absent, refused there is refused', async () => {
    for (const [answer, expected] of [
      [undefined, 'ERR_BLOB_UNAVAILABLE'],
      [REFUSED, 'ERR_UPSTREAM_AUTH'],
    ] as const) {
      const mirror = new FakeOrigin('mirror')
      const digest = mirror.add(randomBytes(2 * MIB))
      mirror.beforePiece = ({ offset }) => {
        if (offset >= MIB) throw UNREACHABLE
      }
      await using rig = await Rig.open({ sources: [mirror, skipped] })
      rig.origin.beforeAnswer = () => {
        if (answer !== undefined) throw answer
      }
      await assert.rejects(rig.read(digest, 0, 2 * MIB), (error: unknown) => {
        assert.equal(errorCode(error), expected)
        assert.equal((error as ShoalError).details['absent'], answer === undefined ? true : undefined)
        return true
      })
      assert.equal(await rig.metric('shoal_source_failures_total'), answer === undefined ? 1 : 2)
    }
  })
})

describe('a blob that is here and cannot be read', () => {
  async function unreadable(sources: readonly BlobSource[]) {
    const rig = await Rig.open({ sources })
    const content = randomBytes(MIB)
    const digest = rig.origin.add(content)
    await rig.read(digest, 0, content.length)
    await until(() => rig.store.find(digest)?.state === 'complete')
    rig.store.find(digest)!.read = () => Promise.reject(new ShoalError('ERR_STORE_IO', 'no descriptors'))
    return { rig, content, digest }
  }

  test('comes from the sources, one after the other from the next byte on', async () => {
    const mirror = new FakeOrigin('mirror')
    const { rig, content, digest } = await unreadable([failing(), skipped, mirror])
    await using _hold = rig
    mirror.add(content)
    mirror.beforePiece = ({ offset }) => {
      if (offset >= 128 * 1024) throw UNREACHABLE
    }
    const before = rig.origin.sentBytes.get(digest) ?? 0
    assert.ok((await rig.read(digest, 0, content.length)).equals(content))
    assert.equal(rig.origin.sentBytes.get(digest), before + content.length - 128 * 1024)
  })

  test("ends with the origin's word, too: too few bytes, absence, a refusal", async () => {
    const { rig, content, digest } = await unreadable([failing()])
    await using _hold = rig
    const open = rig.origin.open.bind(rig.origin)
    rig.origin.open = (key, range, options) => open(key, { ...range, end: range.end - 1 }, options)
    await assert.rejects(rig.read(digest, 0, content.length), { code: 'ERR_UPSTREAM_BODY' })
    rig.origin.open = () => Promise.resolve(undefined)
    await assert.rejects(rig.read(digest, 0, content.length), { code: 'ERR_BLOB_UNAVAILABLE' })
    rig.origin.open = () => Promise.reject(REFUSED)
    await assert.rejects(rig.read(digest, 0, content.length), { code: 'ERR_UPSTREAM_AUTH' })
    const leaver = new AbortController()
    rig.origin.open = () => {
      leaver.abort(new Error('leaving'))
      return Promise.reject(UNREACHABLE)
    }
    await assert.rejects(rig.read(digest, 0, content.length, { signal: leaver.signal }), { message: 'leaving' })
  })
})
