import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ShoalError, parseReference, systemClock, type ManifestKey } from '../../src/core/index.ts'
import { accepts } from '../../src/blobs/manifest-reader.ts'
import { Rig } from '../support/rig.ts'

const BODY = Buffer.from('{"schemaVersion":2}')
const OTHER = Buffer.from('{"schemaVersion":2,"annotations":{}}')
const UNREACHABLE = new ShoalError('ERR_UPSTREAM_TRANSPORT', 'the origin is gone')

function keyOf(reference: string, repository = 'library/test'): ManifestKey {
  return { registry: 'registry.test', repository, reference: parseReference(reference) }
}

describe('ManifestReader', () => {
  test('a tag is answered from the cache until its time is over, then the origin is asked, without fetching the body again', async () => {
    let now = 1_000_000
    await using rig = await Rig.open({ clock: { ...systemClock, now: () => now } })
    rig.origin.tag('v1', BODY)
    assert.equal((await rig.manifests.get(keyOf('v1')))?.from, 'origin')
    const asked = rig.origin.manifestRequests
    assert.equal((await rig.manifests.get(keyOf('v1')))?.from, 'cache')
    assert.equal(rig.origin.manifestRequests, asked)
    now += 60_001
    const answer = await rig.manifests.get(keyOf('v1'))
    assert.equal(answer?.from, 'revalidated')
    assert.ok(Buffer.from(answer.body).equals(BODY))
    assert.equal(rig.origin.manifestRequests, asked + 1)
  })

  test('a tag that moved is noticed when its time is over', async () => {
    let now = 1_000_000
    await using rig = await Rig.open({ clock: { ...systemClock, now: () => now } })
    rig.origin.tag('v1', BODY)
    await rig.manifests.get(keyOf('v1'))
    const moved = rig.origin.tag('v1', OTHER)
    now += 60_001
    const answer = await rig.manifests.get(keyOf('v1'))
    assert.equal(answer?.digest, moved)
    assert.ok(Buffer.from(answer.body).equals(OTHER))
  })

  test('by digest a manifest never needs the origin again, in the repository where it was seen', async () => {
    await using rig = await Rig.open()
    const digest = rig.origin.tag('v1', BODY)
    await rig.manifests.get(keyOf('v1'))
    rig.origin.beforeAnswer = () => {
      throw UNREACHABLE
    }
    assert.equal((await rig.manifests.get(keyOf(digest)))?.from, 'cache')
    await assert.rejects(rig.manifests.get(keyOf(digest, 'other')), { code: 'ERR_UPSTREAM_TRANSPORT' })
  })

  test('while the origin is down a tag is served stale, counted, and not at all when that is switched off', async () => {
    for (const serveStale of [true, false]) {
      let now = 1_000_000
      const manifests = { tagTtlMs: 1000, serveStale }
      await using rig = await Rig.open({ clock: { ...systemClock, now: () => now }, manifests })
      rig.origin.tag('v1', BODY)
      await rig.manifests.get(keyOf('v1'))
      now += 2000
      rig.origin.beforeAnswer = () => {
        throw UNREACHABLE
      }
      if (serveStale) {
        assert.equal((await rig.manifests.get(keyOf('v1')))?.from, 'stale')
        assert.equal(await rig.metric('shoal_stale_answers_total'), 1)
      } else {
        await assert.rejects(rig.manifests.get(keyOf('v1')), { code: 'ERR_UPSTREAM_TRANSPORT' })
      }
    }
  })

  test('a refusal is passed on, not papered over with a stale answer', async () => {
    let now = 1_000_000
    await using rig = await Rig.open({ clock: { ...systemClock, now: () => now } })
    rig.origin.tag('v1', BODY)
    await rig.manifests.get(keyOf('v1'))
    now += 60_001
    rig.origin.beforeAnswer = () => {
      throw new ShoalError('ERR_UPSTREAM_AUTH', 'no', { details: { status: 401 } })
    }
    await assert.rejects(rig.manifests.get(keyOf('v1')), { code: 'ERR_UPSTREAM_AUTH' })
  })

  test('a tag that the origin no longer has is absent, also for the next caller', async () => {
    let now = 1_000_000
    await using rig = await Rig.open({ clock: { ...systemClock, now: () => now } })
    rig.origin.tag('v1', BODY)
    await rig.manifests.get(keyOf('v1'))
    rig.origin.tags.clear()
    now += 60_001
    assert.equal(await rig.manifests.get(keyOf('v1')), undefined)
    rig.origin.beforeAnswer = () => {
      throw UNREACHABLE
    }
    await assert.rejects(rig.manifests.get(keyOf('v1')), { code: 'ERR_UPSTREAM_TRANSPORT' })
  })

  test("a private manifest in the cache is not another caller's", async () => {
    await using rig = await Rig.open()
    rig.origin.visibility = 'private'
    rig.origin.tag('v1', BODY)
    rig.origin.beforeAnswer = (_call, { authorization }) => {
      if (authorization !== 'Bearer alice')
        throw new ShoalError('ERR_UPSTREAM_AUTH', 'no', { details: { status: 401 } })
    }
    await rig.manifests.get(keyOf('v1'), { authorization: 'Bearer alice' })
    assert.equal((await rig.manifests.get(keyOf('v1'), { authorization: 'Bearer alice' }))?.from, 'cache')
    await assert.rejects(rig.manifests.get(keyOf('v1')), { code: 'ERR_UPSTREAM_AUTH' })
    await assert.rejects(rig.manifests.get(keyOf('v1'), { authorization: 'Bearer mallory' }), {
      code: 'ERR_UPSTREAM_AUTH',
    })
  })

  test('a cached type that the client does not accept is asked for at the origin', async () => {
    await using rig = await Rig.open()
    rig.origin.tag('v1', BODY)
    await rig.manifests.get(keyOf('v1'))
    const asked = rig.origin.manifestRequests
    await rig.manifests.get(keyOf('v1'), { accept: 'application/vnd.docker.distribution.manifest.v2+json' })
    assert.ok(rig.origin.manifestRequests > asked)
  })

  test('the length is that of the body, whatever a HEAD says', async () => {
    let now = 1_000_000
    await using rig = await Rig.open({ clock: { ...systemClock, now: () => now } })
    const digest = rig.origin.tag('v1', BODY)
    await rig.manifests.get(keyOf('v1'))
    now += 60_001
    const statManifest = rig.origin.statManifest.bind(rig.origin)
    rig.origin.statManifest = async (...args) => {
      const info = await statManifest(...args)
      return info === undefined ? undefined : { ...info, size: info.size + 100 }
    }
    for (const from of ['revalidated', 'cache']) {
      const answer = await rig.manifests.get(keyOf('v1'))
      assert.deepEqual([answer?.from, answer?.size, answer?.digest], [from, BODY.length, digest])
    }
  })

  test('a caller who may not see a private manifest does not take it from others', async () => {
    await using rig = await Rig.open()
    rig.origin.visibility = 'private'
    rig.origin.tag('v1', BODY)
    await rig.manifests.get(keyOf('v1'), { authorization: 'Bearer alice' })
    const tags = new Map(rig.origin.tags)
    rig.origin.tags.clear()
    assert.equal(await rig.manifests.get(keyOf('v1'), { authorization: 'Bearer mallory' }), undefined)
    for (const [tag, target] of tags) rig.origin.tags.set(tag, target)
    assert.equal((await rig.manifests.get(keyOf('v1'), { authorization: 'Bearer alice' }))?.from, 'cache')
  })

  test('a hundred callers for one tag are one question', async () => {
    await using rig = await Rig.open()
    rig.origin.tag('v1', BODY)
    const answers = await Promise.all(Array.from({ length: 100 }, () => rig.manifests.get(keyOf('v1'))))
    assert.ok(answers.every(answer => answer?.size === BODY.length))
    assert.equal(rig.origin.manifestRequests, 1)
  })
})

test('accepts reads lists, parameters and wildcards', () => {
  const type = 'application/vnd.oci.image.manifest.v1+json'
  assert.ok(accepts(undefined, type))
  assert.ok(accepts('', type))
  assert.ok(accepts(`text/plain, ${type};q=0.5`, type))
  assert.ok(accepts('application/*', type))
  assert.ok(accepts('*/*', type))
  assert.ok(!accepts('application/json', type))
})
