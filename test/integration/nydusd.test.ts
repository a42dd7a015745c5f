import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import {
  bytesOf,
  digestOf,
  generatedBlob,
  startScriptedOrigin,
  type ScriptedOrigin,
} from '../support/scripted-origin.ts'
import { NydusClient, type NydusError, type NydusOptions, type NydusVersion } from '../support/nydus-client.ts'
import {
  freePort,
  skipWithout,
  startShoal,
  temporaryDirectory,
  type ShoalProcess,
  type TemporaryDirectory,
} from '../support/processes.ts'
import { runShoal } from '../support/shoal-command.ts'
import { createTestCa, type TestCa } from '../support/test-ca.ts'
import { until } from '../support/until.ts'

const skip = await skipWithout(['openssl'])

const VERSIONS = ['2.2', '2.3', '2.4'] as const satisfies readonly NydusVersion[]
const REPO = 'team/app'
const MIB = 1024 * 1024
const SIZE = 3 * MIB + 12_345
const USER = { username: 'puller', password: 'a-secret-of-the-puller' }
/** Nobody has it. */
const UNKNOWN = '7'.repeat(64)
/** Shoal's promise for an origin that does not answer, with room for a busy machine; nydusd waits 5 s. */
const FAST_MS = 2500

/** How a client is pointed at Shoal. */
interface Posture {
  readonly name: string
  readonly versions: readonly NydusVersion[]
  /** Where its bytes come from if not from the origin behind Shoal. */
  readonly via: 'proxy' | 'mirror' | 'direct' | 'socket'
  /** Whether it goes to the origin by itself. */
  readonly fallsBack: boolean
  /** Those that it can ask for blobs. */
  readonly origins: readonly OriginName[]
  options(origin: OriginName, version: NydusVersion): Omit<NydusOptions, 'version'>
}

type OriginName =
  'plain' | 'secure' | 'intercepted' | 'secret' | 'redirecting' | 'busy' | 'unreachable' | 'unreachableTls'

/** Everything that the tests share: origins, and one Shoal in front of all of them. */
interface World {
  /** Where `redirecting` sends everybody. */
  readonly cdn: ScriptedOrigin
  readonly origins: Readonly<Record<OriginName, ScriptedOrigin>>
  readonly shoal: ShoalProcess
  /** PEM: of the origins, and of the node's own authority. */
  readonly ca: string
  readonly proxyCa: string
  readonly socket: (name: string) => string
}

let world: World
const owned: AsyncDisposable[] = []

function own<T extends AsyncDisposable>(resource: T): T {
  owned.push(resource)
  return resource
}

/** One blob for each version on its own socket. */
const SOCKET_BLOBS = Object.fromEntries(VERSIONS.map((version, index) => [version, generatedBlob(SIZE, 900 + index)]))

async function openWorld(): Promise<World> {
  const directory: TemporaryDirectory = own(await temporaryDirectory('shoal-nydusd'))
  const ca: TestCa = own(await createTestCa())
  const tls = await ca.issue()
  const cdn = own(await startScriptedOrigin())
  const gone = await startScriptedOrigin()
  const goneUrl = gone.url
  await gone.close()
  const origins = {
    plain: own(await startScriptedOrigin()),
    secure: own(await startScriptedOrigin({ tls })),
    intercepted: own(await startScriptedOrigin({ tls })),
    secret: own(
      await startScriptedOrigin({
        auth: { kind: 'token', users: { [USER.username]: USER.password }, mayPull: user => user === USER.username },
      }),
    ),
    redirecting: own(await startScriptedOrigin({ cdn })),
    busy: own(await startScriptedOrigin({ fault: () => ({ status: 429, headers: { 'retry-after': '120' } }) })),
    // Clients reach these two, Shoal does not.
    unreachable: own(await startScriptedOrigin()),
    unreachableTls: own(await startScriptedOrigin({ tls })),
  }
  const socket = (name: string): string => path.join(directory.path, `${name}.sock`)
  const state = path.join(directory.path, 'state')
  const [proxyCaFile = ''] = (await runShoal(['proxy-ca', 'init', '--set', `state.path=${state}`])).split('\n')
  const hostOf = (name: OriginName): string => (name.startsWith('unreachable') ? goneUrl : origins[name].url)
  const registries = Object.entries(origins).flatMap(([name, origin]) => {
    const registry = { host: hostOf(name as OriginName), tls: { ca: ca.caFile } }
    return [
      [`${name}.test`, registry],
      [origin.host, registry],
    ]
  })
  const prefixes = (Object.keys(origins) as OriginName[]).map(name => ({
    prefix: `/${name}`,
    origin: `${name}.test`,
    repository: REPO,
  }))
  const sockets = [
    ...VERSIONS.map(version => [version, digestOf(SOCKET_BLOBS[version]!)]),
    ['none', `sha256:${UNKNOWN}`],
  ]
  const blobs = sockets.map(([name, digest]) => ({
    socket: socket(name!),
    origin: 'plain.test',
    repository: REPO,
    digest,
  }))
  for (const version of VERSIONS) origins.plain.add(SOCKET_BLOBS[version]!)
  const shoal = own(
    await startShoal({
      directory: directory.path,
      config: {
        mirror: {
          default_registry: 'plain.test',
          hosts: Object.fromEntries(Object.keys(origins).map(name => [`${name}.localhost`, `${name}.test`])),
          blobs: [...prefixes, ...blobs],
        },
        proxy: { intercept: [origins.intercepted.host, origins.unreachableTls.host] },
        registries: Object.fromEntries(registries),
      },
    }),
  )
  return { cdn, origins, shoal, ca: ca.ca, proxyCa: await fs.readFile(proxyCaFile, 'utf8'), socket }
}

const PUBLIC: readonly OriginName[] = ['plain', 'redirecting', 'busy', 'unreachable']
/** The http-proxy backend knows no credentials. */
const PLAIN: readonly OriginName[] = [...PUBLIC, 'secret']

const POSTURES: readonly Posture[] = [
  {
    name: 'its host rewritten',
    versions: VERSIONS,
    via: 'direct',
    fallsBack: false,
    origins: PLAIN,
    options: name => ({
      backend: {
        type: 'registry',
        scheme: 'http',
        host: `${name}.localhost:${new URL(world.shoal.mirror).port}`,
        repo: REPO,
        user: USER,
      },
    }),
  },
  {
    name: 'mirrors',
    versions: ['2.2', '2.3'],
    via: 'mirror',
    fallsBack: true,
    origins: PLAIN,
    options: name => ({
      backend: originOf(name),
      mirrors: [
        {
          host: world.shoal.mirror,
          headers: { 'x-dragonfly-registry': `https://${name}.test` },
          authThrough: true,
        },
      ],
      ca: world.ca,
    }),
  },
  {
    name: 'a proxy and an http origin',
    versions: VERSIONS,
    via: 'proxy',
    fallsBack: true,
    origins: PLAIN,
    options: name => ({ backend: originOf(name), proxy: { url: world.shoal.mirror } }),
  },
  {
    name: 'a proxy with use_http',
    versions: VERSIONS,
    via: 'proxy',
    fallsBack: true,
    origins: ['secure', 'unreachableTls'],
    options: name => ({
      backend: originOf(name),
      proxy: { url: world.shoal.mirror, useHttp: true },
      ca: world.ca,
    }),
  },
  {
    name: 'a proxy that intercepts',
    versions: VERSIONS,
    via: 'proxy',
    fallsBack: true,
    origins: ['intercepted', 'unreachableTls'],
    options: name => ({
      backend: originOf(name),
      proxy: { url: world.shoal.mirror },
      // The second for what it does without Shoal.
      ca: `${world.proxyCa}\n${world.ca}`,
    }),
  },
  {
    name: 'http-proxy over TCP',
    versions: VERSIONS,
    via: 'direct',
    fallsBack: false,
    origins: PUBLIC,
    options: name => ({ backend: { type: 'http-proxy', addr: world.shoal.mirror, path: `/${name}` } }),
  },
  {
    name: 'http-proxy over a unix socket',
    versions: VERSIONS,
    via: 'socket',
    fallsBack: false,
    origins: ['plain'],
    options: (_name, version) => ({
      backend: { type: 'http-proxy', addr: world.socket(version), path: '/ignored' },
    }),
  },
]

function isSecure(name: OriginName): boolean {
  return name === 'secure' || name === 'intercepted' || name === 'unreachableTls'
}

/** The registry backend as it is without Shoal. */
function originOf(name: OriginName): NydusOptions['backend'] {
  const { host } = world.origins[name]
  return { type: 'registry', scheme: isSecure(name) ? 'https' : 'http', host, repo: REPO, user: USER }
}

/** A client of that posture, whose waits between attempts take no time. */
function clientOf(posture: Posture, version: NydusVersion, name: OriginName): NydusClient {
  return new NydusClient({ pause: () => Promise.resolve(), ...posture.options(name, version), version })
}

let seeds = 0

/** Another blob each time. Returns its hex. */
function newBlob(name: OriginName, size = SIZE): { readonly hex: string; readonly bytes: Buffer } {
  seeds += 1
  const content = generatedBlob(size, seeds)
  return { hex: hexOf(holderOf(name).add(content)), bytes: bytesOf(content) }
}

/** The server that sends the bytes of an origin's blobs. */
function holderOf(name: OriginName): ScriptedOrigin {
  return name === 'redirecting' ? world.cdn : world.origins[name]
}

function hexOf(digest: string): string {
  return digest.replace('sha256:', '')
}

/** As a mount does: the metadata at the end of the blob, a few pages here and there, then everything, several ranges at a time. */
async function readAll(client: NydusClient, hex: string, bytes: Buffer): Promise<void> {
  const read = async (start: number, end: number): Promise<void> => {
    const got = await client.read(hex, start, end - start)
    assert.ok(got.equals(bytes.subarray(start, end)), `wrong bytes in ${start} to ${end}`)
  }
  await read(bytes.length - 6000, bytes.length)
  await Promise.all([read(4097, 8200), read(MIB + 1, MIB + 70_000)])
  const starts = Array.from({ length: Math.ceil(bytes.length / MIB) }, (_, index) => index * MIB)
  await Promise.all(starts.map(start => read(start, Math.min(start + MIB, bytes.length))))
}

function sent(origin: ScriptedOrigin, hex: string): number {
  return origin.bytesSent.get(`sha256:${hex}`) ?? 0
}

/** Of requests for blobs. */
function statuses(client: NydusClient): (number | undefined)[] {
  return client.calls.filter(({ purpose }) => purpose === 'blob').map(({ status }) => status)
}

/** Each posture that can ask for blobs of one of these origins, with each of its versions and the first of those. */
function matrix(
  names: readonly OriginName[],
  run: (posture: Posture, version: NydusVersion, name: OriginName) => void,
): void {
  for (const posture of POSTURES) {
    const name = names.find(found => posture.origins.includes(found))
    for (const version of name === undefined ? [] : posture.versions) run(posture, version, name!)
  }
}

describe('nydusd', { skip }, () => {
  before(async () => {
    world = await openWorld()
  })
  after(async () => {
    for (const resource of owned.reverse()) await resource[Symbol.asyncDispose]()
  })

  matrix(['plain', 'secure', 'intercepted'], (posture, version, name) => {
    test(`${version} with ${posture.name} reads a cold and a warm blob, each byte once from the origin`, async () => {
      const origin = world.origins[name]
      const { hex, bytes } =
        posture.via === 'socket'
          ? { hex: hexOf(digestOf(SOCKET_BLOBS[version]!)), bytes: bytesOf(SOCKET_BLOBS[version]!) }
          : newBlob(name)

      for (const temperature of ['cold', 'warm']) {
        await using client = clientOf(posture, version, name)
        await readAll(client, hex, bytes)
        assert.equal(await client.size(hex), bytes.length)
        assert.equal(client.fallbacks, 0, temperature)
        assert.equal(client.went(posture.via), client.calls.length, temperature)
        assert.deepEqual(
          client.calls.filter(({ method }) => method === 'GET').map(({ status }) => status),
          Array<number>(7).fill(206),
        )
        assert.equal(sent(origin, hex), bytes.length, temperature)
      }
    })
  })

  for (const version of VERSIONS) {
    test(`${version} reads through a tunnel, past the cache`, async () => {
      const { hex, bytes } = newBlob('secure')
      for (const times of [1, 2]) {
        await using client = new NydusClient({
          version,
          backend: originOf('secure'),
          proxy: { url: world.shoal.mirror, fallback: false },
          ca: world.ca,
        })
        assert.ok((await client.read(hex, 0, MIB)).equals(bytes.subarray(0, MIB)))
        assert.equal(client.bytes.proxy, MIB)
        assert.equal(sent(world.origins.secure, hex), times * MIB)
      }
    })
  }

  matrix(['secret'], (posture, version) => {
    test(`${version} with ${posture.name} fetches its own token for a private registry, and nobody reads without one`, async () => {
      const { hex, bytes } = newBlob('secret')
      for (const temperature of ['cold', 'warm']) {
        await using client = clientOf(posture, version, 'secret')
        await readAll(client, hex, bytes)
        assert.equal(client.fallbacks, 0, temperature)
        assert.equal(client.went(posture.via), client.calls.filter(({ purpose }) => purpose === 'blob').length)
        assert.equal(statuses(client)[0], 401, temperature)
        assert.equal(sent(world.origins.secret, hex), bytes.length, temperature)
      }
      const { backend, ...others } = posture.options('secret', version)
      assert.ok(backend.type === 'registry')
      const { host, repo, scheme, type } = backend
      await using stranger = new NydusClient({
        ...others,
        backend: { type, scheme, host, repo },
        version,
        pause: () => Promise.resolve(),
      })
      await assert.rejects(stranger.read(hex, 0, 1000))
      assert.deepEqual(new Set(statuses(stranger)), new Set([401]))
      assert.equal(stranger.bytes[posture.via], 0)
      // An ordinary challenge is nothing to warn of.
      const warnings = world.shoal.records.filter(({ level }) => level === 'warn').map(record => JSON.stringify(record))
      assert.deepEqual(
        warnings.filter(warning => warning.includes('refused with 401')),
        [],
      )
    })
  })

  test('2.2 without auth_through asks the mirror only for what the origin has granted', async () => {
    const { hex, bytes } = newBlob('secret')
    await using client = new NydusClient({
      version: '2.2',
      backend: originOf('secret'),
      mirrors: [{ host: world.shoal.mirror, headers: { 'x-dragonfly-registry': 'https://secret.test' } }],
    })
    await readAll(client, hex, bytes)
    const [first, ...others] = client.calls.filter(({ purpose }) => purpose === 'blob')
    assert.deepEqual([first!.via, first!.status], ['direct', 401])
    assert.ok(others.every(({ via, status }) => via === 'mirror' && status === 206))
    assert.equal(client.bytes.mirror, 6000 + 4103 + 69_999 + SIZE)
  })

  matrix(['unreachable', 'unreachableTls'], (posture, version, name) => {
    test(`${version} with ${posture.name} hears quickly that no origin can be reached${posture.fallsBack ? ', and goes there itself' : ''}`, async () => {
      await using client = clientOf(posture, version, name)
      const { hex, bytes } = newBlob(name)
      const read = client.read(hex, 100, 5000)
      if (posture.fallsBack) {
        assert.ok((await read).equals(bytes.subarray(100, 5100)))
        assert.equal(client.fallbacks, 1)
        assert.equal(client.bytes.direct, 5000)
      } else await assert.rejects(read, (error: NydusError) => error.status === 503)
      const refused = client.calls.filter(({ via }) => via === posture.via && (via !== 'direct' || !posture.fallsBack))
      assert.ok(refused.length > 0)
      for (const { status, ms } of refused) {
        assert.equal(status, 503)
        assert.ok(ms < FAST_MS, `after ${ms} ms`)
      }
    })
  })

  test('every version reads on from what is here when the origin has been stopped', async () => {
    await using origin = await startScriptedOrigin()
    await using shoal = await startShoal({
      config: { mirror: { default_registry: 'mortal.test' }, registries: { 'mortal.test': { host: origin.url } } },
    })
    const content = generatedBlob(SIZE, 77)
    const hex = hexOf(origin.add(content))
    const backend = { type: 'registry', scheme: 'http', host: shoal.mirrorHost, repo: REPO } as const
    for (const state of ['up', 'stopped']) {
      if (state === 'stopped') await origin.close()
      for (const version of VERSIONS) {
        await using client = new NydusClient({ version, backend })
        await readAll(client, hex, bytesOf(content))
        assert.deepEqual(new Set(statuses(client)), new Set([206]), state)
      }
    }
  })

  matrix(['plain', 'secure', 'intercepted'], (posture, version, name) => {
    test(`${version} with ${posture.name} hears of a blob that nobody has, and does not fall back`, async () => {
      if (posture.via === 'socket') {
        const backend = { type: 'http-proxy', addr: world.socket('none'), path: '/' } as const
        await using client = new NydusClient({ version, backend, pause: () => Promise.resolve() })
        await assert.rejects(client.read(UNKNOWN, 0, 100_000), (error: NydusError) => error.status === 404)
        return
      }
      await using client = clientOf(posture, version, name)
      // An error instead of an answer makes a proxied http-proxy backend fall back, and no other.
      await assert.rejects(client.read(UNKNOWN, 0, 1000), (error: NydusError) => error.status === 404)
      assert.deepEqual(new Set(statuses(client)), new Set([404]))
      assert.equal(client.fallbacks, 0)
      assert.equal(client.went(posture.via), client.calls.length)
    })
  })

  matrix(['redirecting'], (posture, version) => {
    test(`${version} with ${posture.name} is never sent elsewhere by an origin that redirects`, async () => {
      await using client = clientOf(posture, version, 'redirecting')
      const { hex, bytes } = newBlob('redirecting')
      await readAll(client, hex, bytes)
      assert.ok(client.calls.every(({ purpose, status }) => purpose === 'blob' && status === 206))
      assert.equal(client.fallbacks, 0)
      assert.equal(sent(world.cdn, hex), bytes.length)
    })
  })

  matrix(['busy'], (posture, version) => {
    test(`${version} with ${posture.name} hears that the origin wants to be left alone`, async () => {
      await using client = clientOf(posture, version, 'busy')
      await assert.rejects(
        client.read(UNKNOWN, 0, 1000),
        // Not the proxy's own refusal: 2.4 would turn to the origin at once then.
        (error: NydusError) => error.status === 429 && error.proxyRefusal === undefined,
      )
      assert.deepEqual(new Set(statuses(client)), new Set([429]))
      assert.equal(client.fallbacks, 0)
    })
  })

  test('the Retry-After of the origin reaches the client', async () => {
    const answer = await fetch(`${world.shoal.mirror}/v2/${REPO}/blobs/sha256:${UNKNOWN}?ns=busy.test`)
    await answer.arrayBuffer()
    assert.deepEqual([answer.status, answer.headers.get('retry-after')], [429, '120'])
    assert.equal(answer.headers.get('x-dragonfly-error-type'), 'backend')
  })

  test("2.4's headers make a prefetch the whole blob, and no origin sees them", async () => {
    const origin = world.origins.plain
    const { hex, bytes } = newBlob('plain', 9 * MIB)
    await using client = clientOf(
      POSTURES.find(({ name }) => name === 'a proxy and an http origin')!,
      '2.4',
      'plain',
    )
    assert.ok((await client.read(hex, MIB, 4096, { prefetch: true })).equals(bytes.subarray(MIB, MIB + 4096)))
    await until(() => sent(origin, hex) === bytes.length)
    const seen = origin.requests.filter(({ reference }) => reference === `sha256:${hex}`)
    assert.ok(seen.length > 0)
    assert.deepEqual(
      seen.flatMap(({ headers }) => Object.keys(headers)).filter(header => header.startsWith('x-dragonfly')),
      [],
    )
  })

  for (const name of ['its host rewritten', 'a proxy and an http origin']) {
    test(`2.4 with ${name} prefetches whole blobs as streams, and goes on with one where it was`, async () => {
      const posture = POSTURES.find(found => found.name === name)!
      const { hex, bytes } = newBlob('plain')
      await using client = clientOf(posture, '2.4', 'plain')
      const stream = await client.streamPrefetch(hex, bytes.length)
      assert.ok(stream.equals(bytes))
      assert.deepEqual(statuses(client), [200])
      assert.ok((await client.streamPrefetch(hex, bytes.length, 1_234_567)).equals(bytes.subarray(1_234_567)))
      assert.deepEqual(statuses(client), [200, 206])
      assert.equal(sent(world.origins.plain, hex), bytes.length)
      assert.equal(client.fallbacks, 0)
    })
  }

  test('whatever clients take for a ping_url is answered, on both listeners', async () => {
    for (const listener of [world.shoal.mirror, world.shoal.health]) {
      for (const ping of ['/server/ping', '/healthy', ...(listener === world.shoal.mirror ? ['/v2', '/v2/'] : [])]) {
        const answer = await fetch(`${listener}${ping}`, { redirect: 'manual' })
        await answer.arrayBuffer()
        assert.equal(answer.status, 200, `${listener}${ping}`)
      }
    }
  })

  test('a Shoal that was stopped is left alone, and used again when it answers its ping', async () => {
    await using directory = await temporaryDirectory('shoal-back')
    await using origin = await startScriptedOrigin()
    const ports = { mirror: await freePort(), health: await freePort() }
    const start = (): Promise<ShoalProcess> =>
      startShoal({
        directory: directory.path,
        config: {
          mirror: { listen: [`127.0.0.1:${ports.mirror}`] },
          health: { listen: [`127.0.0.1:${ports.health}`] },
          registries: { [origin.host]: { host: origin.url } },
        },
      })
    const url = `http://127.0.0.1:${ports.mirror}`
    const backend = { type: 'registry', scheme: 'http', host: origin.host, repo: REPO } as const
    const headers = { 'x-dragonfly-registry': origin.url }
    const pingUrl = `http://127.0.0.1:${ports.health}/server/ping`
    await using mirrored = new NydusClient({
      version: '2.3',
      backend,
      mirrors: [{ host: url, headers, failureLimit: 2 }],
    })
    await using proxied = new NydusClient({ version: '2.4', backend, proxy: { url, pingUrl } })
    const content = generatedBlob(SIZE, 78)
    const hex = hexOf(origin.add(content))
    const readBoth = async (): Promise<void> => {
      for (const client of [mirrored, proxied])
        assert.ok((await client.read(hex, 0, 4096)).equals(bytesOf(content, 0, 4096)))
    }
    const ping = async (): Promise<void> => {
      await mirrored.pingMirrors()
      await proxied.pingProxy()
    }

    await (await start()).stop()
    await readBoth()
    await readBoth()
    await ping()
    assert.equal(mirrored.enabledMirrors, 0)
    assert.equal(proxied.proxyHealthy, false)
    const tried = mirrored.went('mirror') + proxied.went('proxy')
    await readBoth()
    assert.equal(mirrored.went('mirror') + proxied.went('proxy'), tried)

    await using shoal = await start()
    await ping()
    assert.deepEqual([mirrored.enabledMirrors, proxied.proxyHealthy], [1, true])
    await readBoth()
    assert.deepEqual([mirrored.bytes.mirror, proxied.bytes.proxy], [4096, 4096])
    assert.ok(shoal.pid > 0)
  })
})
