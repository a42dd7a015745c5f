import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { describe, test } from 'node:test'
import { ShoalError } from '../../src/core/index.ts'
import { wishesOf } from '../../src/http/dragonfly.ts'
import { openMirror, viewOf, type Answer } from '../support/mirror-rig.ts'
import { until } from '../support/until.ts'

const MIB = 1024 * 1024

function wishes(headers: Record<string, string>): ReturnType<typeof wishesOf> {
  const lower = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
  return wishesOf({ rawHeaders: Object.entries(headers).flat(), headers: lower } as unknown as IncomingMessage)
}

function errorOf(answer: Answer): { code: string; message: string } {
  const { errors } = JSON.parse(answer.body.toString()) as { errors: { code: string; message: string }[] }
  return errors[0]!
}

async function openWith(bytes: number) {
  const mirror = await openMirror()
  const content = randomBytes(bytes)
  const digest = mirror.rig.origin.add(content)
  return {
    mirror,
    content,
    digest,
    get: (headers: Record<string, string>, method: 'GET' | 'HEAD' = 'GET') =>
      mirror.fetch(`/v2/library/test/blobs/${digest}`, { method, headers }),
    isComplete: () => mirror.rig.store.find(digest)?.state === 'complete',
    [Symbol.asyncDispose]: () => mirror[Symbol.asyncDispose](),
  }
}

describe('wishesOf', () => {
  test('a request without such headers wishes nothing', () => {
    assert.equal(wishes({ Host: 'x', 'X-Forwarded-For': 'y', 'X-Dragon': 'z', 'X-Dragonfly-': 'z' }), undefined)
  })

  test('priorities are numbers from 0 to 6, the nearest of them, or the highest', () => {
    const priority = (text: string): unknown => {
      const { urgency, storedOnly, refusal } = wishes({ 'X-DRAGONFLY-PRIORITY': text })!
      return refusal !== undefined ? 'forbidden' : storedOnly ? 'stored' : urgency
    }
    for (const [text, meaning] of [
      ['0', 'demand'],
      ['1', 'forbidden'],
      ['2', 'stored'],
      ['3', 'prefetch'],
      ['4', 'demand'],
      ['5', 'demand'],
      ['6', 'demand'],
      ['-7', 'demand'],
      ['700', 'demand'],
      [' 3 ', 'prefetch'],
      ['+3', 'prefetch'],
      ['3.5', 'demand'],
      ['low', 'demand'],
      ['3, 1', 'demand'],
      ['', 'demand'],
    ] as const) {
      assert.equal(priority(text), meaning, text)
    }
  })

  test('prefetch is true or it is not', () => {
    assert.equal(wishes({ 'X-Dragonfly-Prefetch': 'True' })?.prefetch, true)
    for (const text of ['false', '1', 'yes', ''])
      assert.equal(wishes({ 'X-Dragonfly-Prefetch': text })?.prefetch, false)
  })
})

describe('X-Dragonfly headers of a request', () => {
  test('what means nothing here is accepted: P2P, tags, applications, filters, piece lengths', async () => {
    await using rig = await openWith(1000)
    for (const value of ['true', 'false', 'nonsense']) {
      const answer = await rig.get({
        'x-dragonfly-use-p2p': value,
        'x-dragonfly-tag': value,
        'x-dragonfly-application': value,
        'x-dragonfly-filtered-query-params': value,
        'x-dragonfly-filter': value,
        'x-dragonfly-piece-length': value,
        'x-dragonfly-priority': value,
      })
      assert.equal(answer.status, 200)
      assert.ok(answer.body.equals(rig.content))
    }
  })

  test('an answer names its task, and says when all of it is here; only to those who speak so', async () => {
    await using rig = await openWith(MIB)
    const hex = rig.digest.slice('sha256:'.length)
    const speaks = { 'x-dragonfly-use-p2p': 'true' }
    const cold = await rig.get({ ...speaks, range: 'bytes=0-99' })
    assert.equal(cold.headers['x-dragonfly-task-id'], hex)
    assert.equal(cold.headers['x-dragonfly-task-download-finished'], undefined)
    assert.equal((await rig.get({})).headers['x-dragonfly-task-id'], undefined)
    await until(rig.isComplete)
    for (const headers of [{}, { range: 'bytes=0-99' }, { range: 'bytes=0-99,200-299' }, { 'if-none-match': '*' }]) {
      for (const method of ['GET', 'HEAD'] as const) {
        const answer = await rig.get({ ...speaks, ...headers }, method)
        assert.equal(answer.headers['x-dragonfly-task-id'], hex)
        assert.equal(answer.headers['x-dragonfly-task-download-finished'], 'true')
        assert.equal((await rig.get(headers, method)).headers['x-dragonfly-task-id'], undefined)
      }
    }
  })

  test('priority 1 and files to be written are refused for blobs, manifests and listings, cold and warm', async () => {
    await using rig = await openWith(1000)
    rig.mirror.rig.origin.tag('v1', Buffer.from('{}'))
    for (let round = 0; round < 2; round += 1) {
      for (const [name, value] of [
        ['x-dragonfly-priority', '1'],
        ['X-Dragonfly-Output-Path', '/etc/passwd'],
        ['X-DRAGONFLY-FORCE-HARD-LINK', 'false'],
      ] as const) {
        for (const tail of [`blobs/${rig.digest}`, 'manifests/v1', 'tags/list']) {
          const answer = await rig.mirror.fetch(`/v2/library/test/${tail}`, { headers: { [name]: value } })
          assert.equal(answer.status, 403, `${name} ${tail}`)
          assert.equal(answer.headers['x-dragonfly-error-type'], 'proxy')
          assert.equal(errorOf(answer).code, 'DENIED')
          assert.ok(errorOf(answer).message.length > 0)
        }
      }
      assert.equal((await rig.get({ range: 'bytes=0-9' })).status, 206)
      assert.equal((await rig.mirror.fetch('/v2/', { headers: { 'x-dragonfly-priority': '1' } })).status, 200)
    }
  })

  test('priority 2 is what is here and nothing else: no source is asked', async () => {
    await using rig = await openWith(4 * MIB)
    const only = { 'x-dragonfly-priority': '2' }
    const { origin } = rig.mirror.rig
    const cold = await rig.get(only)
    assert.equal(cold.status, 404)
    assert.equal(errorOf(cold).code, 'BLOB_UNKNOWN')
    assert.equal(cold.headers['x-dragonfly-error-type'], 'proxy')
    assert.equal((await rig.get(only, 'HEAD')).status, 404)
    assert.deepEqual([origin.stats, origin.opened], [[], []])
    await rig.get({ range: `bytes=0-${MIB - 1}` })
    await until(() => rig.mirror.rig.store.find(rig.digest)?.missing({ first: 0, end: 4 }).length === 0)
    const asked = origin.opened.length
    const here = await rig.get({ ...only, range: 'bytes=100-600000' })
    assert.equal(here.status, 206)
    assert.ok(here.body.equals(rig.content.subarray(100, 600_001)))
    for (const range of [`bytes=0-${MIB}`, 'bytes=0-9,2000000-2000009', undefined]) {
      const answer = await rig.get({ ...only, ...(range === undefined ? {} : { range }) })
      assert.equal(answer.status, 404, range)
    }
    assert.equal((await rig.get({ ...only, range: 'bytes=0-9,20-29' })).status, 206)
    assert.equal((await rig.get(only, 'HEAD')).status, 404, 'HEAD says what GET would')
    assert.equal((await rig.get({ ...only, 'if-none-match': `"${rig.digest}"` })).status, 304)
    assert.equal(origin.opened.length, asked)
    assert.equal(origin.stats.length, 1)
  })

  test('priority 2 does not ask a source either when the disk turns out not to have it', async () => {
    await using rig = await openWith(MIB)
    await rig.get({})
    await until(rig.isComplete)
    const { reader, origin } = rig.mirror.rig
    const lookup = reader.lookup.bind(reader)
    reader.lookup = (...place) => {
      const open = lookup(...place)
      return (
        open && {
          ...viewOf(open),
          canSendNow: () => false,
          readNow: () => false,
          read: () => Promise.resolve(undefined),
        }
      )
    }
    const asked = origin.opened.length
    const answer = await rig.get({ 'x-dragonfly-priority': '2', range: 'bytes=0-9' })
    assert.equal(answer.status, 404)
    assert.equal(origin.opened.length, asked)
    assert.equal((await rig.get({ range: 'bytes=0-9' })).status, 206)
  })

  test('Prefetch with a range brings the whole blob after the answer, once, cold and warm', async () => {
    await using rig = await openWith(11 * MIB)
    const { origin } = rig.mirror.rig
    const headers = { 'x-dragonfly-prefetch': 'true' }
    const asked = Array.from({ length: 8 }, (_, index) => ({ ...headers, range: `bytes=${index}-${1000 + index}` }))
    const answers = await Promise.all(asked.map(more => rig.get(more)))
    for (const [index, { body }] of answers.entries()) assert.ok(body.equals(rig.content.subarray(index, 1001 + index)))
    // Warm by now: they take the short way, and find the prefetch under way.
    for (const more of asked) assert.equal((await rig.get(more)).status, 206)
    await until(async () => rig.isComplete() && (await rig.mirror.rig.metric('shoal_fills')) === 0)
    assert.equal(origin.sentBytes.get(rig.digest), rig.content.length)
    const opened = origin.opened.length
    assert.equal((await rig.get(asked[0]!)).status, 206)
    assert.equal(await rig.mirror.rig.metric('shoal_fills'), 0)
    assert.equal(origin.opened.length, opened)
  })

  test('no range, no Prefetch, and none for a client that asks no source or is answered with a refusal', async () => {
    await using rig = await openWith(4 * MIB)
    const { reader } = rig.mirror.rig
    let prefetched = 0
    reader.prefetch = () => {
      prefetched += 1
      return Promise.resolve()
    }
    const wish = { 'x-dragonfly-prefetch': 'true' }
    const range = { range: 'bytes=0-9' }
    await rig.get(range)
    await rig.get({ ...wish, 'x-dragonfly-priority': '2', ...range })
    await rig.get({ ...wish, 'x-dragonfly-priority': '1', ...range })
    await rig.get({ 'x-dragonfly-prefetch': 'false', ...range })
    await rig.get({ ...wish, range: `bytes=${8 * MIB}-` })
    await rig.get({ ...wish, ...range }, 'HEAD')
    await rig.get(wish)
    assert.equal(prefetched, 0)
    const other = rig.mirror.rig.origin.add(randomBytes(4 * MIB))
    const path = `/v2/library/test/blobs/${other}`
    assert.equal((await rig.mirror.fetch(path, { headers: { ...wish, ...range } })).status, 206)
    assert.equal(prefetched, 1)
    await until(rig.isComplete)
    for (let round = 0; round < 2; round += 1) await rig.get({ ...wish, ...range })
    assert.equal(prefetched, 1, 'all of it is here')
  })

  test('a prefetch that fails concerns no answer', async () => {
    const events: string[] = []
    const say = (_fields: object, event: string): void => void events.push(event)
    const log = { debug: say, info: say, warn: say, error: say, child: () => log }
    await using mirror = await openMirror({ log })
    const digest = mirror.rig.origin.add(randomBytes(1000))
    mirror.rig.reader.prefetch = () => Promise.reject(new ShoalError('ERR_CLOSED', 'closing'))
    const headers = { 'x-dragonfly-prefetch': 'true', range: 'bytes=0-9' }
    assert.equal((await mirror.fetch(`/v2/library/test/blobs/${digest}`, { headers })).status, 206)
    await until(() => events.includes('not prefetched'))
  })

  test('priority 3 reads with low urgency, and the same bytes', async () => {
    await using mirror = await openMirror()
    const { reader, origin } = mirror.rig
    const urgencies: unknown[] = []
    const stream = reader.stream.bind(reader)
    reader.stream = (key, range, options) => {
      urgencies.push(options?.urgency)
      return stream(key, range, options)
    }
    for (const priority of ['3', '6', undefined]) {
      const content = randomBytes(MIB)
      const answer = await mirror.fetch(`/v2/library/test/blobs/${origin.add(content)}`, {
        headers: priority === undefined ? {} : { 'x-dragonfly-priority': priority },
      })
      assert.ok(answer.body.equals(content))
    }
    assert.deepEqual(urgencies, ['prefetch', 'demand', 'demand'])
  })
})
