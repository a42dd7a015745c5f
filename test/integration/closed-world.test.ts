import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs/promises'
import http from 'node:http'
import net from 'node:net'
import path from 'node:path'
import { describe, test } from 'node:test'
import type { Fetched } from '../support/client.ts'
import { DIALECTS, PolyglotShoal, connectThrough } from '../support/dialects.ts'
import { bytesOf, generatedBlob } from '../support/generated-blob.ts'
import { metricOf } from '../support/shoal-command.ts'
import { startShoal, type ConfigTables, type ShoalProcess } from '../support/shoal.ts'
import { startScriptedOrigin, type ScriptedOrigin } from '../support/scripted-origin.ts'
import { createTestCa } from '../support/test-ca.ts'
import { freePort, skipWithout, temporaryDirectory } from '../support/tools.ts'

const REPOSITORY = 'library/test'
const BLOB = generatedBlob(50_000, 41)
const SECRET = 'what only this machine may know'
const skipTls = await skipWithout(['openssl'])
/** Every address that a canary sings on. */
const LOCAL = ['127.0.0.1', '127.0.0.2', '::1'] as const

/** Servers on every kind of loopback address, at one port, that count who connects. */
class Canary implements AsyncDisposable {
  readonly port: number
  connections = 0
  readonly #servers: readonly http.Server[]

  private constructor(port: number, servers: readonly http.Server[]) {
    this.port = port
    this.#servers = servers
    for (const server of servers) server.on('connection', () => (this.connections += 1))
  }

  static async start(addresses: readonly string[] = LOCAL): Promise<Canary> {
    const port = await freePort()
    const servers: http.Server[] = []
    for (const address of addresses) {
      if (net.isIPv6(address) && !(await hasIpv6())) continue
      const server = http.createServer((_request, response) => response.end(SECRET)).listen(port, address)
      await once(server, 'listening')
      servers.push(server)
    }
    return new Canary(port, servers)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    }
  }
}

async function hasIpv6(): Promise<boolean> {
  const server = net.createServer().listen(0, '::1')
  try {
    await once(server, 'listening')
    return true
  } catch {
    return false
  } finally {
    server.close()
  }
}

/** This machine, spelled in every way that some parser takes for it. */
const THIS_MACHINE = [
  '127.0.0.1',
  '127.0.0.2',
  '[::1]',
  '[0:0:0:0:0:0:0:1]',
  '[::ffff:127.0.0.1]',
  '[::ffff:7f00:1]',
  '[::127.0.0.1]',
  '[64:ff9b::7f00:1]',
  '[2002:7f00:1::]',
  '0.0.0.0',
  '[::]',
  '2130706433',
  '017700000001',
  '0x7f000001',
  '0177.0.0.1',
  '0x7f.0.0.1',
  '127.1',
  '127.0.1',
  'localhost',
  'LOCALHOST',
  'sub.localhost',
] as const
/** Those that nobody can have a canary on. */
const ELSEWHERE = ['169.254.169.254', '[fe80::1]', '10.0.0.1', '192.168.0.1', '172.16.0.1', '[fd00::1]'] as const
/** What is no name, or two. */
const NONSENSE: readonly string[] = [
  'user:password@127.0.0.1:PORT',
  'registry.test@127.0.0.1:PORT',
  '127.0.0.1:PORT@registry.test',
  '127.0.0.1:PORT/..',
  '127.0.0.1:PORT\\registry.test',
  '127.0.0.1.:PORT',
  'localhost.:PORT',
  '127。0。0。1:PORT',
  '１２７.0.0.1:PORT',
  '127.0.0.1%3aPORT',
  '[::1%25lo]:PORT',
  'unix:/run/docker.sock',
  'file:///etc/passwd',
  '*',
  '_default',
  '256.256.256.256:PORT',
  '1.2.3.4.5:PORT',
  '4294967296:PORT',
  'xn--a:PORT',
]

interface World extends AsyncDisposable {
  readonly shoal: ShoalProcess
  readonly canary: Canary
  readonly origin: ScriptedOrigin
  readonly digest: string
}

async function openWorld(config: ConfigTables = {}): Promise<World> {
  const canary = await Canary.start()
  const origin = await startScriptedOrigin()
  const digest = origin.add(BLOB)
  const shoal = await startShoal({
    config: {
      mirror: { listen: ['127.0.0.1:0'], default_registry: 'registry.test' },
      registries: { 'registry.test': { host: origin.url } },
      ...config,
    },
  })
  return {
    shoal,
    canary,
    origin,
    digest,
    [Symbol.asyncDispose]: async () => {
      await shoal[Symbol.asyncDispose]()
      await origin.close()
      await canary[Symbol.asyncDispose]()
    },
  }
}

/** Every way of saying a host. `undefined`: this way cannot say it. */
const WAYS: Readonly<Record<string, (world: World, host: string) => Promise<Fetched | undefined>>> = {
  ns: ({ shoal, digest }, host) => get(shoal, `/v2/${REPOSITORY}/blobs/${digest}?ns=${encodeURIComponent(host)}`),
  'ns of a manifest': ({ shoal }, host) =>
    get(shoal, `/v2/${REPOSITORY}/manifests/latest?ns=${encodeURIComponent(host)}`),
  'ns of a list': ({ shoal }, host) => get(shoal, `/v2/${REPOSITORY}/tags/list?ns=${encodeURIComponent(host)}`),
  'X-Dragonfly-Registry': ({ shoal, digest }, host) =>
    get(shoal, `/v2/${REPOSITORY}/blobs/${digest}`, { 'x-dragonfly-registry': Buffer.from(host).toString('latin1') }),
  'X-Dragonfly-Registry as a URL': ({ shoal, digest }, host) =>
    get(shoal, `/v2/${REPOSITORY}/blobs/${digest}`, {
      'x-dragonfly-registry': `http://${Buffer.from(host).toString('latin1')}`,
    }),
  'absolute-form of a blob': ({ shoal, digest }, host) => absolute(shoal, host, `/v2/${REPOSITORY}/blobs/${digest}`),
  'absolute-form of a manifest': ({ shoal }, host) => absolute(shoal, host, `/v2/${REPOSITORY}/manifests/latest`),
  'absolute-form': ({ shoal }, host) => absolute(shoal, host, '/latest/meta-data/'),
  'absolute-form for p2p': ({ shoal, digest }, host) =>
    absolute(shoal, host, `/v2/${REPOSITORY}/blobs/${digest}`, { 'x-dragonfly-use-p2p': 'true' }),
  CONNECT: async ({ shoal }, host) => {
    if (!/^[\x21-\x7e]+$/.test(host)) return undefined
    const { response, socket } = await connectThrough(shoal.mirror, /:\d+$/.test(host) ? host : `${host}:80`)
    socket.on('error', () => undefined).destroy()
    return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.alloc(0) }
  },
}

function absolute(
  shoal: ShoalProcess,
  host: string,
  path: string,
  headers: Record<string, string> = {},
): Promise<Fetched | undefined> {
  if (!/^[\x21-\x7e]+$/.test(host)) return Promise.resolve(undefined)
  return get(shoal, `http://${host}${path}`, { ...headers, host: 'registry.test' })
}

async function get(shoal: ShoalProcess, path: string, headers: Record<string, string> = {}): Promise<Fetched> {
  const { hostname, port } = new URL(shoal.mirror)
  const request = http.request({ hostname, port, path, headers, agent: false }).end()
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  const pieces: Buffer[] = []
  for await (const piece of response as AsyncIterable<Buffer>) pieces.push(piece)
  return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(pieces) }
}

/** Asks for each host in each way, and sees to it that nobody was called. */
async function assertClosed(world: World, hosts: readonly string[], statuses: readonly number[]): Promise<void> {
  const before = await upstreamRequests(world)
  for (const host of hosts) {
    for (const [way, ask] of Object.entries(WAYS)) {
      const answer = await ask(world, host)
      if (answer === undefined) continue
      const what = `${way}: "${host}"`
      assert.ok(statuses.includes(answer.status), `${what} is answered ${answer.status} ${answer.body.toString()}`)
      assert.ok(!answer.body.includes(SECRET), what)
      assert.equal(world.canary.connections, 0, `${what} was connected to`)
    }
  }
  assert.equal(await upstreamRequests(world), before)
}

async function upstreamRequests({ shoal, origin }: World): Promise<number> {
  const outcomes = await Promise.all(
    ['success', 'refused', 'absent'].map(outcome => metricOf(shoal, 'shoal_upstream_requests_total', { outcome })),
  )
  return outcomes.reduce((sum, count) => sum + count, origin.connected)
}

function withPort(hosts: readonly string[], { port }: Canary): string[] {
  return hosts.map(host => (NONSENSE.includes(host) ? host.replace('PORT', String(port)) : `${host}:${port}`))
}

describe('with a closed table', () => {
  test('nothing that a request can say leads to this machine or its networks', async () => {
    await using world = await openWorld()
    await assertClosed(world, [...withPort(THIS_MACHINE, world.canary), ...ELSEWHERE], [403])
    for (const host of ELSEWHERE) await assertClosed(world, [`${host}:5000`], [403])
  })

  test('what is no name is refused before anything is looked up', async () => {
    await using world = await openWorld()
    await assertClosed(world, withPort(NONSENSE, world.canary), [400, 403, 404])
  })

  test('the Host header is a key of mirror.hosts, and else means nothing', async () => {
    await using world = await openWorld()
    const { canary, digest, origin, shoal } = world
    for (const host of withPort(THIS_MACHINE, canary)) {
      const answer = await get(shoal, `/v2/${REPOSITORY}/blobs/${digest}`, { host })
      assert.ok(answer.body.equals(bytesOf(BLOB)), host)
    }
    assert.equal(canary.connections, 0)
    assert.ok(origin.requests.every(({ headers }) => headers.host === origin.host))
  })

  test('the name of a registry is no way to its other ports, nor past its name', async () => {
    await using world = await openWorld()
    const names = ['registry.test:22', 'registry.test:1', 'a.registry.test', 'registry.test.localhost']
    await assertClosed(world, names, [403])
  })
})

describe('with allow_any', () => {
  const OPEN = { upstream: { allow_any: true, retries: 0 } }

  test('addresses of this machine and its networks are refused, however they are spelled, before and after resolution', async () => {
    await using world = await openWorld(OPEN)
    const isName = (host: string): boolean => /localhost/i.test(host)
    await assertClosed(
      world,
      withPort(
        THIS_MACHINE.filter(host => !isName(host)),
        world.canary,
      ),
      [403],
    )
    await assertClosed(world, [...ELSEWHERE, ...ELSEWHERE.map(host => `${host}:5000`)], [403])
    // A name is refused when it has been looked up: there is no way to it.
    await assertClosed(world, withPort(THIS_MACHINE.filter(isName), world.canary), [403, 502, 503])
  })

  test('what is no name is refused as without', async () => {
    await using world = await openWorld(OPEN)
    const isLookedUp = (host: string): boolean => /^(?:localhost\.|_)/.test(host)
    const hosts = NONSENSE.filter(host => !isLookedUp(host))
    await assertClosed(world, withPort(hosts, world.canary), [400, 403, 404])
    await assertClosed(world, withPort(NONSENSE.filter(isLookedUp), world.canary), [403, 502, 503])
  })

  test('a rule that lets everything pass does not open them either', async () => {
    await using world = await openWorld({ ...OPEN, proxy: { rules: [{ match: '.*', action: 'direct' }] } })
    await assertClosed(world, [...withPort(THIS_MACHINE, world.canary), ...ELSEWHERE], [403, 502, 503])
  })

  test(
    'allow_private opens the addresses that it names and no other, redirects included',
    { skip: skipTls },
    async () => {
      await using ca = await createTestCa()
      const leaf = await ca.issue(['127.0.0.1'])
      await using registry = await startScriptedOrigin({ tls: leaf })
      await using canary = await Canary.start(['127.0.0.2', '::1'])
      const digest = registry.add(BLOB)
      const moved = registry.add(generatedBlob(1_000, 42))
      await using shoal = await startShoal({
        config: { upstream: { allow_any: true, allow_private: ['127.0.0.1/32'], retries: 0 } },
        env: { NODE_EXTRA_CA_CERTS: ca.caFile },
      })
      const ask = (resource: string, ns: string): Promise<Fetched> =>
        get(shoal, `/v2/${REPOSITORY}/blobs/${resource}?ns=${ns}`)
      const answer = await ask(digest, registry.host)
      assert.equal(answer.status, 200)
      assert.ok(answer.body.equals(bytesOf(BLOB)))
      for (const host of ['127.0.0.2', '[::1]', '[::ffff:127.0.0.2]', '2130706434', '0.0.0.0']) {
        const name = `${host}:${canary.port}`
        assert.equal((await ask(digest, name)).status, 403, name)
        for (const scheme of ['https', 'http']) {
          registry.fault = () => ({ status: 307, headers: { location: `${scheme}://${name}/x` } })
          assert.equal((await ask(moved, registry.host)).status, 503, `redirected to ${scheme}://${name}`)
        }
      }
      for (const host of ELSEWHERE) {
        registry.fault = () => ({ status: 307, headers: { location: `https://${host}/x` } })
        const began = Date.now()
        assert.equal((await ask(moved, registry.host)).status, 503, host)
        assert.ok(Date.now() - began < 2_000, `${host} was not tried`)
      }
      assert.equal(canary.connections, 0)
    },
  )
})

/** A registry that is not of this machine, as far as Shoal can tell: it is reached through an HTTP proxy. */
function behindProxy(proxy: ScriptedOrigin, more: object = {}): ConfigTables {
  return {
    registries: {
      'registry.test': { host: 'http://registry.test', proxy: { url: proxy.url, fallback: false }, ...more },
    },
    upstream: { retries: 0 },
  }
}

describe('what a registry of the table says', () => {
  test('no redirect of it leads to this machine', async () => {
    await using canary = await Canary.start()
    await using origin = await startScriptedOrigin()
    await using shoal = await startShoal({
      config: { mirror: { listen: ['127.0.0.1:0'], default_registry: 'registry.test' }, ...behindProxy(origin) },
    })
    let location = ''
    origin.fault = () => ({ status: 307, headers: { location } })
    const digest = origin.add(BLOB)
    const places = [...withPort(THIS_MACHINE, canary), '169.254.169.254', '[fe80::1]', '[::ffff:169.254.169.254]']
    for (const place of places) {
      for (const resource of [`blobs/${digest}`, 'manifests/latest', 'tags/list']) {
        location = `http://${place}/v2/x`
        const answer = await get(shoal, `/v2/${REPOSITORY}/${resource}`)
        assert.equal(answer.status, 503, `${resource} to ${place}`)
        assert.equal(answer.headers['location'], undefined)
        assert.ok(!answer.body.includes(SECRET))
      }
    }
    for (const scheme of ['file:///etc/passwd', 'unix:/run/docker.sock', 'ftp://registry.test/x', '//[::1]/x', '::']) {
      location = scheme
      assert.equal((await get(shoal, `/v2/${REPOSITORY}/blobs/${digest}`)).status, 503, scheme)
    }
    assert.equal(canary.connections, 0)
    // Nor by way of the proxy.
    assert.ok(origin.requests.length >= 3 * places.length)
    const strays = origin.requests.filter(({ url }) => !url.startsWith('http://registry.test/v2/'))
    assert.deepEqual(strays, [])
  })

  test('no token realm of it leads anywhere but to its own site, and the node’s login goes nowhere else', async () => {
    await using secrets = await temporaryDirectory()
    const file = path.join(secrets.path, 'password')
    await fs.writeFile(file, 'password-of-the-node', { mode: 0o600 })
    await using canary = await Canary.start()
    await using origin = await startScriptedOrigin({ auth: { kind: 'token', mayPull: () => false } })
    await using shoal = await startShoal({
      config: {
        mirror: { listen: ['127.0.0.1:0'], default_registry: 'registry.test' },
        ...behindProxy(origin, { username: 'node', password_file: file }),
      },
    })
    const digest = origin.add(BLOB)
    for (const place of [...withPort(THIS_MACHINE, canary), ...ELSEWHERE]) {
      for (const scheme of ['http', 'https']) {
        const realm = `${scheme}://${place}/token`
        origin.auth.options = { ...origin.auth.options, realm }
        const answer = await get(shoal, `/v2/${REPOSITORY}/blobs/${digest}`)
        assert.equal(answer.status, 401, realm)
        // The client may know better.
        assert.ok(String(answer.headers['www-authenticate']).includes(realm))
      }
    }
    assert.equal(canary.connections, 0)
    assert.equal(origin.count('token'), 0)
    assert.ok(origin.requests.every(({ headers }) => headers.authorization === undefined))
  })

  test('the control: the canary is heard when it is in the table', async () => {
    await using canary = await Canary.start()
    await using shoal = await startShoal({
      config: { registries: { 'canary.test': { host: `http://127.0.0.1:${canary.port}` } }, upstream: { retries: 0 } },
    })
    await get(shoal, `/v2/${REPOSITORY}/tags/list?ns=canary.test`)
    assert.ok(canary.connections > 0)
  })
})

test('no request makes Shoal write a file: X-Dragonfly-Output-Path is refused in every dialect', async () => {
  await using origin = await startScriptedOrigin()
  const digest = origin.add(BLOB)
  origin.addManifest({ mediaType: 'application/vnd.oci.image.manifest.v1+json', body: Buffer.from('{}') }, 'v1')
  await using directory = await temporaryDirectory()
  const file = path.join(directory.path, 'output')
  await using shoal = await PolyglotShoal.start({
    registry: 'registry.test',
    entry: { host: origin.url },
    repositories: [REPOSITORY],
  })
  // Cold, and when the blob is here.
  for (const isWarm of [false, true]) {
    if (isWarm) await shoal.ask('ns', { repository: REPOSITORY, resource: `blobs/${digest}` })
    const asked = origin.requests.length
    for (const dialect of DIALECTS) {
      for (const headers of [
        { 'X-Dragonfly-Output-Path': file },
        { 'x-dragonfly-force-hard-link': 'true', 'x-dragonfly-output-path': '' },
      ]) {
        for (const method of ['GET', 'HEAD']) {
          const answer = await shoal.ask(dialect, {
            repository: REPOSITORY,
            resource: `blobs/${digest}`,
            headers,
            method,
          })
          assert.equal(answer.status, 403, `${dialect} ${method}`)
          assert.equal(answer.headers['x-dragonfly-error-type'], 'proxy')
        }
      }
    }
    for (const resource of ['manifests/v1', 'tags/list', `referrers/${digest}`]) {
      const answer = await shoal.ask('ns', {
        repository: REPOSITORY,
        resource,
        headers: { 'x-dragonfly-output-path': file },
      })
      assert.equal(answer.status, 403, resource)
    }
    assert.equal(origin.requests.length, asked, 'nor was anything fetched')
  }
  await assert.rejects(fs.access(file))
})
