import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { pathToFileURL } from 'node:url'
import path from 'node:path'
import { describe, test } from 'node:test'
import { ShoalError } from '../../src/core/index.ts'
import { openLogger, type RootLogger } from '../../src/observability/index.ts'

interface Capture {
  readonly log: RootLogger
  readonly text: () => string
  /** The lines written so far, without their time. */
  readonly lines: () => Record<string, unknown>[]
}

function capture(level = 'debug'): Capture {
  const written: string[] = []
  const log = openLogger({ level, destination: { write: text => void written.push(text) } })
  const text = (): string => written.join('')
  const lines = (): Record<string, unknown>[] =>
    text()
      .split('\n')
      .filter(line => line !== '')
      .map(line => {
        const { time, ...rest } = JSON.parse(line) as Record<string, unknown>
        assert.ok(Math.abs(Date.parse(String(time)) - Date.now()) < 60_000)
        return rest
      })
  return { log, text, lines }
}

describe('a log line', () => {
  test('is JSON with its level, its fields and its event', () => {
    const { log, lines } = capture()
    log.info({ listener: 'mirror', port: 80, list: [1, 'a'], nothing: null }, 'listening')
    assert.deepEqual(lines(), [
      { level: 'info', listener: 'mirror', port: 80, list: [1, 'a'], nothing: null, msg: 'listening' },
    ])
  })

  test('of a child carries the fields of the child, and those of its parents', () => {
    const { log, lines } = capture()
    log.child({ room: 'store' }).child({ digest: 'x' }).warn({ block: 3 }, 'bad block')
    assert.deepEqual(lines(), [{ level: 'warn', room: 'store', digest: 'x', block: 3, msg: 'bad block' }])
  })

  test('of a value that JSON cannot hold is still written', () => {
    const { log, lines } = capture()
    const cyclic: Record<string, unknown> = { name: 'a' }
    cyclic['self'] = cyclic
    log.info({ big: 5n, bytes: new Uint8Array(7), when: new Date(0), url: new URL('http://u:p@h/x?y'), cyclic }, 'odd')
    const [line] = lines()
    assert.equal(line?.['big'], '5')
    assert.equal(line['bytes'], '[7 bytes]')
    assert.equal(line['when'], '1970-01-01T00:00:00.000Z')
    assert.equal(line['url'], 'http://h/x')
  })
})

describe('the level', () => {
  test('decides what is written', () => {
    const { log, lines } = capture('warn')
    for (const level of ['debug', 'info', 'warn', 'error'] as const) log[level]({}, level)
    assert.deepEqual(
      lines().map(line => line['msg']),
      ['warn', 'error'],
    )
  })

  test('may change while running, for children that were there before as well', () => {
    const { log, lines } = capture('error')
    const child = log.child({ room: 'store' })
    child.info({}, 'unheard')
    log.level = 'info'
    assert.equal(log.level, 'info')
    child.info({}, 'heard')
    log.level = 'silent'
    child.error({}, 'unheard again')
    assert.deepEqual(
      lines().map(line => line['msg']),
      ['heard'],
    )
  })

  test('that does not exist is refused and changes nothing', () => {
    const { log } = capture('info')
    assert.throws(() => (log.level = 'loud'), RangeError)
    assert.equal(log.level, 'info')
    assert.throws(() => openLogger({ level: 'loud' }), RangeError)
  })
})

describe('a secret', () => {
  const SECRET = 'hunter2hunter2'
  const leaks: Record<string, object> = {
    'as a field': { password: SECRET },
    'as a header': {
      headers: {
        Authorization: `Bearer ${SECRET}`,
        'Proxy-Authorization': SECRET,
        'set-cookie': [SECRET],
        cookie: SECRET,
      },
    },
    'deep in an object': {
      a: [{ b: { identitytoken: SECRET, access_token: SECRET, refresh_token: SECRET, token: SECRET } }],
    },
    'in a URL': { url: `https://user:${SECRET}@r.example/v2/?token=${SECRET}#${SECRET}` },
    'in a text with a URL': { text: `GET https://cdn.example/blob?sig=${SECRET}, https://u:${SECRET}@h/ failed` },
    'in a text with a credential': { text: `sent authorization Bearer ${SECRET} and Basic ${btoa(`u:${SECRET}`)}` },
    'in the message of an error': { err: new Error(`connect https://cdn.example/blob?sig=${SECRET}`) },
    'in the cause of an error': { err: new Error('failed', { cause: new Error(`at http://u:${SECRET}@h/`) }) },
    'in the details of an error': {
      err: new ShoalError('ERR_UPSTREAM_AUTH', 'no', { details: { authorization: SECRET } }),
    },
  }

  for (const [where, fields] of Object.entries(leaks)) {
    test(`is not written ${where}, nor by a child that holds it`, () => {
      const { log, text, lines } = capture()
      log.error(fields, 'leak')
      log.child(fields).error({}, 'leak')
      assert.equal(lines().length, 2)
      assert.doesNotMatch(text(), new RegExp(`${SECRET}|${btoa(`u:${SECRET}`)}`))
    })
  }

  test('costs the rest of the line nothing', () => {
    const { log, lines } = capture()
    const challenge = 'Bearer realm="https://auth.example/token",service="r.example"'
    log.info(
      { url: 'https://user:x@r.example:5000/v2/a?b=c', challenge, note: 'Basic authentication failed', tokens: 3 },
      'kept',
    )
    assert.deepEqual(lines(), [
      {
        level: 'info',
        url: 'https://r.example:5000/v2/a',
        challenge,
        note: 'Basic authentication failed',
        tokens: 3,
        msg: 'kept',
      },
    ])
  })
})

describe('an error', () => {
  test('is written with its code, its details and its causes', () => {
    const { log, lines } = capture()
    const reset = Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' })
    const details = { status: 503, url: 'https://r/x?sig=1' }
    log.warn(
      { err: new ShoalError('ERR_UPSTREAM_TRANSPORT', 'origin failed', { cause: reset, details }) },
      'fetch failed',
    )
    assert.deepEqual(lines()[0]?.['err'], {
      type: 'ShoalError',
      code: 'ERR_UPSTREAM_TRANSPORT',
      message: 'origin failed',
      details: { status: 503, url: 'https://r/x' },
      causes: [{ type: 'Error', code: 'ECONNRESET', message: 'socket hang up' }],
    })
  })

  test('that nobody raised on purpose says where it came from', () => {
    const { log, lines } = capture()
    log.error({ err: new TypeError('x is not a function') }, 'bug')
    const { stack } = lines()[0]?.['err'] as { stack: string }
    assert.match(stack, /log\.test/)
  })

  test('whose causes go in a circle, or are not errors, is written once', () => {
    const { log, lines } = capture()
    const [a, b] = [new Error('a'), new Error('b', { cause: 'text' })]
    a.cause = a
    log.error({ a, b }, 'odd')
    assert.deepEqual((lines()[0]?.['a'] as { causes?: unknown }).causes, undefined)
    assert.deepEqual((lines()[0]?.['b'] as { causes?: unknown }).causes, [{ message: 'text' }])
  })

  test('of several is written with the first of them', () => {
    const { log, lines } = capture()
    log.error({ err: new AggregateError([new Error('first'), new Error('second')], 'several') }, 'odd')
    const { causes } = lines()[0]?.['err'] as { causes: unknown }
    assert.deepEqual(causes, [{ type: 'Error', message: 'first' }])
  })
})

test('lines go to stderr unless told otherwise, and flush() leaves none behind', () => {
  const room = pathToFileURL(path.join(import.meta.dirname, '../../src/observability/index.js')).href
  const script = `
    const { openLogger } = await import(${JSON.stringify(room)})
    const log = openLogger({ level: 'info' })
    for (let i = 0; i < 100; i += 1) log.info({ i }, 'line')
    log.flush()
    process.kill(process.pid, 'SIGKILL')`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  assert.equal(stdout, '')
  assert.equal(stderr.trim().split('\n').length, 100)
})
