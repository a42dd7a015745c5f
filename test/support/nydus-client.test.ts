import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NydusClient, NydusError, type NydusOptions } from './nydus-client.ts'
import { parseChallenge } from './nydus-token.ts'
import { bytesOf, generatedBlob, startScriptedOrigin, type Fault, type ScriptedOrigin } from './scripted-origin.ts'

const VERSIONS = ['2.2', '2.3', '2.4'] as const
const CONTENT = generatedBlob(100_000)

/** A client of `origin`, and the blob that is there. */
function clientOf(
  origin: ScriptedOrigin,
  options: Omit<NydusOptions, 'backend'>,
): { client: NydusClient; read: () => Promise<Buffer> } {
  const hex = origin.add(CONTENT).replace('sha256:', '')
  const backend = { type: 'registry', scheme: 'http', host: origin.host, repo: 'team/app' } as const
  const client = new NydusClient({ pause: () => Promise.resolve(), backend, ...options })
  return { client, read: () => client.read(hex, 1000, 5000) }
}

function failing(fault: Fault): Promise<ScriptedOrigin> {
  return startScriptedOrigin({ fault: () => fault })
}

for (const version of VERSIONS) {
  test(`nydusd ${version} takes a body of exactly the length, and no longer or shorter one`, async () => {
    const faults: readonly [Fault, boolean][] = [
      [{}, true],
      [{ ignoreRange: true }, false],
      [{ excess: 1 }, false],
      [{ truncateAfter: 4999 }, false],
      [{ reset: 4999 }, false],
    ]
    for (const [fault, works] of faults) {
      await using origin = await failing(fault)
      const { client, read } = clientOf(origin, { version })
      await using _hold = client
      if (works) assert.ok((await read()).equals(bytesOf(CONTENT, 1000, 6000)))
      else await assert.rejects(read(), JSON.stringify(fault))
    }
  })

  test(`nydusd ${version} waits no longer than its timeout, for the head and for the body`, async () => {
    for (const fault of [{ delayMs: 60_000 }, { stallAfter: 100 }]) {
      await using origin = await failing(fault)
      const { client, read } = clientOf(origin, { version, timeoutMs: 100 })
      await using _hold = client
      await assert.rejects(read(), /aborted/)
      assert.equal(client.calls.length, version === '2.4' ? 4 : 1)
    }
  })

  test(`nydusd ${version} follows the redirects of an origin, without its credential`, async () => {
    await using cdn = await startScriptedOrigin()
    await using origin = await startScriptedOrigin({ cdn })
    cdn.add(CONTENT)
    const { client, read } = clientOf(origin, { version })
    await using _hold = client
    for (let times = 0; times < 2; times += 1) assert.ok((await read()).equals(bytesOf(CONTENT, 1000, 6000)))
    assert.equal(client.calls.filter(({ purpose }) => purpose === 'redirect').length, 2)
    // All but 2.3 remember where they were sent.
    assert.equal(origin.count('blob'), version === '2.3' ? 2 : 1)
  })
}

test('a mirror that fails is left alone after failure_limit errors, which a 5xx is not', async () => {
  await using origin = await startScriptedOrigin()
  for (const [fault, enabled] of [
    [{ reset: 'before-headers' }, 0],
    [{ status: 503 }, 1],
  ] as const) {
    await using mirror = await failing(fault)
    const { client, read } = clientOf(origin, { version: '2.3', mirrors: [{ host: mirror.url, failureLimit: 2 }] })
    await using _hold = client
    for (let times = 0; times < 3; times += 1) await read()
    assert.deepEqual([client.enabledMirrors, client.went('mirror')], [enabled, enabled === 0 ? 2 : 3])
    assert.deepEqual([client.fallbacks, client.went('direct')], [3, 3])
    await client.pingMirrors()
    assert.equal(client.enabledMirrors, enabled)
  }
})

test("a proxy's own refusal is not the origin's: 403 ends the read, 429 makes 2.4 try without Dragonfly's headers", async () => {
  await using origin = await startScriptedOrigin()
  for (const [status, priorities] of [
    [403, ['6']],
    [429, ['6', undefined, '6', undefined]],
  ] as const) {
    await using proxy = await failing({ status, headers: { 'x-dragonfly-error-type': 'proxy' } })
    const { client, read } = clientOf(origin, { version: '2.4', proxy: { url: proxy.url } })
    await using _hold = client
    await assert.rejects(read(), (error: NydusError) => error instanceof NydusError && error.status === status)
    assert.equal(origin.requests.length, 0)
    assert.deepEqual(
      proxy.requests.map(({ headers }) => headers['x-dragonfly-priority']),
      priorities,
    )
  }
})

test('a challenge is read as nydusd reads it', () => {
  const bearer = 'Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a:pull,push"'
  const parsed = {
    scheme: 'Bearer',
    realm: 'https://auth.test/token',
    service: 'registry.test',
    scope: 'repository:a:pull,push',
  }
  assert.deepEqual(parseChallenge(bearer, '2.3'), parsed)
  assert.equal(parseChallenge(bearer.replace('Bearer', 'bearer'), '2.4'), undefined)
  assert.equal(parseChallenge('Bearer realm="r",service="s"', '2.3'), undefined)
  assert.deepEqual(parseChallenge('Bearer realm="r",service="s"', '2.4'), {
    scheme: 'Bearer',
    realm: 'r',
    service: 's',
    scope: '',
  })
  assert.equal(parseChallenge('Basic realm="x"', '2.2')?.scheme, 'Basic')
})
