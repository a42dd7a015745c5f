import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs/promises'
import net, { type AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { after, before, test, type TestContext } from 'node:test'
import { errorCode, systemClock, type ErrorCode } from '../../../src/core/index.ts'
import {
  DEFAULT_REGISTRIES,
  OriginTable,
  PUBLIC_TLS,
  type MirrorOptions,
  type OriginTableOptions,
  type RegistryOptions,
} from '../../../src/upstream/index.ts'
import { makeOciLayout } from '../../support/oci-layout-maker.ts'
import { basic, digestOf, startScriptedOrigin } from '../../support/scripted-origin.ts'
import { MirroredOrigin } from '../../../src/upstream/mirrors/index.ts'
import { collect, keyOf, readRange, TestClock, TestLog, testDeps, until } from '../rig.ts'

const BYTES = Buffer.from('a small blob')
const DIGEST = digestOf(BYTES)
const blobs = new Map([[DIGEST, BYTES]])

/** A registry at `host` with nothing else said. */
function at(host: string): RegistryOptions {
  return { host, tls: PUBLIC_TLS, visibility: 'auto', mirrors: [] }
}

let directory = ''
let dockerConfig = ''

before(async () => {
  directory = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-table-'))
  dockerConfig = path.join(directory, 'config.json')
  await fs.writeFile(dockerConfig, '{}')
})

after(() => fs.rm(directory, { recursive: true, force: true }))

function optionsOf(options: Partial<OriginTableOptions> = {}): OriginTableOptions {
  return {
    connectTimeoutMs: 1_000,
    idleTimeoutMs: 1_000,
    retries: 1,
    maxConnections: 4,
    registries: {},
    origins: {},
    dockerConfig,
    credentialPlugins: [],
    certsD: '',
    allowAny: false,
    allowPrivate: [],
    ...options,
  }
}

function failsWith(code: ErrorCode, text = '') {
  return (error: unknown): boolean => errorCode(error) === code && String(error).includes(text)
}

test('the public registries are there without any configuration', async () => {
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf())
  assert.deepEqual(table.names(), Object.keys(DEFAULT_REGISTRIES).toSorted())
  assert.equal(table.get('docker.io')?.name, 'registry:docker.io')
  assert.equal(table.get('registry.corp.test'), undefined)
})

test('what is configured takes the place of a default, under any spelling', async () => {
  await using origin = await startScriptedOrigin({ blobs })
  const registries = { 'Registry-1.docker.io': at(origin.url) }
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ registries }))
  assert.equal((await table.get('docker.io')?.stat(keyOf(DIGEST)))?.size, BYTES.length)
  assert.equal(table.names().length, Object.keys(DEFAULT_REGISTRIES).length)
})

test('the entry for any other name answers for it, and for nothing that has an entry', async () => {
  await using any = await startScriptedOrigin({ blobs })
  const registries = { '*': at(any.url) }
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ registries }))
  assert.ok(
    (await readRange(table.get('registry.corp.test:5000')!, DIGEST, { start: 0, end: 3 })).equals(BYTES.subarray(0, 3)),
  )
  assert.equal(any.requests[0]!.repository, 'library/test')
  assert.equal(table.get('anything')?.name, 'registry:anything')
  assert.equal(table.get('*'), undefined)
})

test('with an entry for any other name, the public registries are others too, unless they are listed', async () => {
  await using any = await startScriptedOrigin({ blobs })
  await using hub = await startScriptedOrigin({ blobs })
  const registries = { '*': at(any.url), 'quay.io': at(hub.url) }
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ registries }))
  for (const name of ['docker.io', 'quay.io']) {
    assert.equal((await table.get(name)?.stat(keyOf(DIGEST)))?.size, BYTES.length, name)
  }
  assert.deepEqual([any.requests.length, hub.requests.length], [1, 1])
  assert.match(any.requests[0]!.url, /[?&]ns=docker\.io/)
  assert.deepEqual(table.names(), ['*', 'quay.io'])
})

test('a directory is an origin under its name', async () => {
  const layout = await makeOciLayout(path.join(directory, 'layout'), { layers: [20] })
  const origins = { demo: { type: 'oci-layout', path: layout.directory } } as const
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ origins }))
  assert.equal((await table.get('demo')?.stat(keyOf(layout.layers[0]!.digest)))?.size, 20)
})

test('credentials come from the docker config', async () => {
  await using origin = await startScriptedOrigin({ blobs, auth: { kind: 'basic', users: { node: 'pass:word' } } })
  const file = path.join(directory, 'with-auth.json')
  await fs.writeFile(file, JSON.stringify({ auths: { [origin.host]: { auth: basic('node', 'pass:word').slice(6) } } }))
  for (const [visibility, told] of [
    ['auto', 1],
    ['shared', 0],
  ] as const) {
    const log = new TestLog()
    const registries = { 'registry.test': { ...at(origin.url), visibility } }
    const options = optionsOf({ registries, dockerConfig: file })
    await using table = await OriginTable.open(testDeps(systemClock, log), options)
    for (const repository of ['a', 'b']) {
      const info = await table.get('registry.test')?.stat(keyOf(DIGEST, repository))
      assert.equal(info?.visibility, 'shared')
    }
    assert.equal(log.lines.filter(line => line.includes('readable for every local caller')).length, told, visibility)
  }
})

test('a login for Docker Hub does not go to whoever is called docker.io', async () => {
  await using origin = await startScriptedOrigin({ blobs, auth: { kind: 'basic', users: { node: 'pass:word' } } })
  const file = path.join(directory, 'hub.json')
  const hub = { auth: basic('node', 'pass:word').slice(6) }
  await fs.writeFile(file, JSON.stringify({ auths: { 'https://index.docker.io/v1/': hub } }))
  const registries = { 'docker.io': at(origin.url) }
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ registries, dockerConfig: file }))
  await assert.rejects(table.get('docker.io')!.stat(keyOf(DIGEST)), failsWith('ERR_UPSTREAM_AUTH'))
  assert.ok(origin.requests.every(({ headers }) => headers.authorization === undefined))
})

test('what cannot be used is an error of the configuration that never repeats a password', async () => {
  const layout = await makeOciLayout(path.join(directory, 'twice'), { layers: [1] })
  const wrong: [Partial<OriginTableOptions>, string][] = [
    [{ registries: { x: at('registry.test') } }, 'registries."x".host'],
    [{ registries: { x: at('ftp://registry.test') } }, 'https://'],
    [{ registries: { x: at('https://u:secret@registry.test') } }, 'credential'],
    [{ registries: { x: at('https://registry.test/?token=secret') } }, 'query'],
    [{ registries: { 'not a host': at('https://registry.test') } }, 'not a host name'],
    [
      {
        registries: {
          'docker.io': at('https://a'),
          'index.docker.io': at('https://b'),
        },
      },
      'twice',
    ],
    [{ origins: { 'a/b': { type: 'oci-layout', path: layout.directory } } }, 'origins."a/b"'],
    [{ origins: { 'ghcr.io': { type: 'oci-layout', path: layout.directory } } }, 'both'],
    [{ origins: { demo: { type: 'oci-layout', path: path.join(directory, 'nowhere') } } }, 'origins."demo".path'],
    [{ dockerConfig: path.join(directory, 'nowhere.json') }, 'nowhere.json'],
  ]
  for (const [options, text] of wrong) {
    await assert.rejects(OriginTable.open(testDeps(systemClock), optionsOf(options)), (error: unknown) => {
      assert.ok(failsWith('ERR_CONFIG_INVALID', text)(error), String(error))
      assert.ok(!String(error).includes('secret'))
      return true
    })
  }
})

test('a reload keeps the connections and tokens of what has not changed, and replaces the rest', async () => {
  await using same = await startScriptedOrigin({ blobs, auth: { kind: 'token' } })
  await using old = await startScriptedOrigin({ blobs })
  await using fresh = await startScriptedOrigin({ blobs })
  const entry = at
  const clock = new TestClock()
  // Only the time that replaced origins are given passes at once.
  clock.onSleep = ms => (ms < 30_000 ? systemClock.sleep(ms) : undefined)
  await using table = await OriginTable.open(
    testDeps(clock),
    optionsOf({
      registries: { 'same.test': entry(same.url), 'moved.test': entry(old.url), 'gone.test': entry(old.url) },
    }),
  )
  const kept = table.get('same.test')
  const moved = table.get('moved.test')!
  await kept?.stat(keyOf(DIGEST))
  await moved.stat(keyOf(DIGEST))

  await table.reload(optionsOf({ registries: { 'same.test': entry(same.url), 'moved.test': entry(fresh.url) } }))
  assert.equal(table.get('same.test'), kept)
  await table.get('same.test')?.stat(keyOf(DIGEST))
  assert.equal(same.count('token'), 1)
  assert.equal(table.get('gone.test'), undefined)
  await table.get('moved.test')?.stat(keyOf(DIGEST))
  assert.equal(fresh.count('blob'), 1)
  const isClosed = async (): Promise<boolean> =>
    moved.stat(keyOf(DIGEST)).then(
      () => false,
      (error: unknown) => errorCode(error) === 'ERR_CLOSED',
    )
  await until(isClosed, 'the replaced origin is closed')
  assert.deepEqual(
    clock.sleeps.filter(ms => ms >= 30_000),
    [30_000, 30_000],
  )
})

test('a body that is being read when its origin is replaced is read to its end', async () => {
  await using old = await startScriptedOrigin({ blobs })
  await using table = await OriginTable.open(
    testDeps(systemClock),
    optionsOf({ registries: { 'moved.test': at(old.url) } }),
  )
  const body = await table.get('moved.test')?.open(keyOf(DIGEST), { start: 0, end: BYTES.length })
  await table.reload(optionsOf())
  assert.deepEqual(await collect(body), BYTES)
})

test('a certificate file that has been replaced, or a new password, is taken up by a reload', async () => {
  await using origin = await startScriptedOrigin({ blobs })
  const entry = at(origin.url)
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ registries: { 'x.test': entry } }))
  const first = table.get('x.test')
  const login = { ...entry, username: 'u', password: 'p' }
  await table.reload(optionsOf({ registries: { 'x.test': login } }))
  const second = table.get('x.test')
  assert.notEqual(second, first)
  await fs.writeFile(
    dockerConfig,
    JSON.stringify({ auths: { [origin.host]: { auth: basic('other', 'pass').slice(6) } } }),
  )
  await table.reload(optionsOf({ registries: { 'x.test': login } }))
  assert.equal(table.get('x.test'), second, 'the options come before the docker config')
})

test('a bad reload changes nothing', async () => {
  await using origin = await startScriptedOrigin({ blobs })
  const registries = { 'x.test': at(origin.url) }
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ registries }))
  const before = [table.names(), table.get('x.test')]
  const origins = { demo: { type: 'oci-layout', path: path.join(directory, 'nowhere') } } as const
  const bad = optionsOf({ registries: { 'y.test': at(origin.url) }, origins })
  await assert.rejects(table.reload(bad), failsWith('ERR_CONFIG_INVALID'))
  assert.deepEqual([table.names(), table.get('x.test')], before)
  assert.equal((await table.get('x.test')?.stat(keyOf(DIGEST)))?.size, BYTES.length)
})

test('a closed table refuses everything, and may be closed again', async () => {
  const table = await OriginTable.open(testDeps(systemClock), optionsOf())
  const origin = table.get('docker.io')
  await table.close()
  await table.close()
  assert.throws(() => table.get('docker.io'), failsWith('ERR_CLOSED'))
  await assert.rejects(table.reload(optionsOf()), failsWith('ERR_CLOSED'))
  await assert.rejects(origin!.stat(keyOf(DIGEST)), failsWith('ERR_CLOSED'))
})

test('closing the table does not wait for the time that replaced origins are given', async () => {
  const clock = new TestClock()
  // Only an abort ends this sleep.
  clock.sleep = async (_, options) => {
    await once(options!.signal!, 'abort')
    throw options!.signal!.reason
  }
  const table = await OriginTable.open(testDeps(clock), optionsOf({ registries: { 'x.test': at('https://x.test') } }))
  const replaced = table.get('x.test')!
  await table.reload(optionsOf())
  await table.close()
  await assert.rejects(replaced.stat(keyOf(DIGEST)), failsWith('ERR_CLOSED'))
})

test('an origin that cannot be closed is said so and harms nobody', async t => {
  const log = new TestLog()
  const options = optionsOf({ registries: { 'x.test': at('https://x.test') } })
  await using table = await OriginTable.open(testDeps(new TestClock(), log), options)
  const replaced = table.get('x.test')
  assert.ok(replaced instanceof MirroredOrigin)
  t.mock.method(replaced, 'close', () => Promise.reject(new Error('stuck')))
  await table.reload(optionsOf())
  await until(() => log.lines.length > 0, 'the failure is logged')
  assert.match(log.lines[0]!, /origin not closed cleanly.*stuck/)
})

test('what * and the like stand for is kept while it is used, and made again when its options change', async () => {
  await using any = await startScriptedOrigin({ blobs })
  await using other = await startScriptedOrigin({ blobs })
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ registries: { '*': at(any.url) } }))
  const first = table.get('a.test')
  assert.equal(table.get('a.test'), first)
  await table.reload(optionsOf({ registries: { '*': at(any.url) } }))
  assert.equal(table.get('a.test'), first)
  await table.reload(optionsOf({ registries: { '*': at(other.url) } }))
  assert.notEqual(table.get('a.test'), first)
  await table.get('a.test')?.stat(keyOf(DIGEST))
  assert.match(other.requests[0]!.url, /[?&]ns=a\.test/)
  await table.reload(optionsOf())
  assert.equal(table.get('a.test'), undefined)
})

test('a name outside the table is a registry where allow_any says so, but none at home', async () => {
  await using table = await OriginTable.open(
    testDeps(systemClock),
    optionsOf({ allowAny: true, connectTimeoutMs: 100 }),
  )
  assert.equal(table.get('registry.example')?.name, 'registry:registry.example')
  for (const name of ['127.0.0.1:5000', '[::1]:5000', '10.0.0.1', '169.254.169.254', '[::ffff:127.0.0.1]']) {
    assert.equal(table.get(name), undefined, name)
  }
  await assert.rejects(table.get('localhost')!.stat(keyOf(DIGEST)), failsWith('ERR_UPSTREAM_TRANSPORT', 'EHOSTUNREACH'))
})

test('an address that is allowed may be a registry although it is private', async () => {
  const options = optionsOf({ allowAny: true, allowPrivate: ['10.0.0.0/8'] })
  await using table = await OriginTable.open(testDeps(systemClock), options)
  assert.equal(table.get('10.0.0.1:5000')?.name, 'registry:10.0.0.1:5000')
  assert.equal(table.get('192.168.0.1:5000'), undefined)
})

test('a mirror is asked before its registry, and its requests say which registry is meant', async () => {
  await using mirror = await startScriptedOrigin({ blobs })
  await using origin = await startScriptedOrigin({ blobs })
  const registry = { ...at(origin.url), mirrors: [mirrorAt(mirror.url)] }
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ registries: { 'r.test': registry } }))
  const names = table.sources('r.test').map(({ name }) => name)
  assert.deepEqual(names, [`mirror:${mirror.host}`, 'registry:r.test'])
  await collect(await table.sources('r.test')[0]!.open(keyOf(DIGEST), { start: 0, end: 1 }))
  assert.match(mirror.requests[0]!.url, /[?&]ns=r\.test/)
  assert.equal(mirror.requests[0]!.headers['x-dragonfly-registry'], 'https://r.test')
  assert.equal(origin.requests.length, 0)
  assert.deepEqual(
    table.registries().map(({ name, mirrors }) => [name, mirrors.map(({ status }) => status)]),
    [['r.test', ['healthy']]],
  )
})

test('without auth_through a mirror is asked only with what the registry has granted, and never with the login', async () => {
  const login = { username: 'node', password: 'pass:word' }
  const users = { node: 'pass:word' }
  const key = { ...keyOf(DIGEST), registry: 'r.test' }
  for (const kind of ['none', 'token', 'basic'] as const) {
    await using mirror = await startScriptedOrigin({ blobs })
    await using origin = await startScriptedOrigin({ blobs, auth: kind === 'none' ? { kind } : { kind, users } })
    const registry = { ...at(origin.url), ...login, mirrors: [{ ...mirrorAt(mirror.url), authThrough: false }] }
    await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ registries: { 'r.test': registry } }))
    const [first, last] = table.sources('r.test')
    assert.equal(await first!.stat(key), undefined)
    assert.equal(mirror.requests.length, 0)
    await last!.stat(key)
    await first!.stat(key)
    const seen = mirror.requests.map(({ headers }) => headers.authorization?.split(' ')[0] ?? 'none')
    assert.deepEqual(seen, { none: ['none'], token: ['Bearer'], basic: [] }[kind], kind)
  }
})

test('hosts.toml is read again when it changes; one that cannot be used leaves its host and the others as they were', async () => {
  await using one = await startScriptedOrigin({ blobs })
  await using two = await startScriptedOrigin({ blobs })
  const certsD = path.join(directory, 'certs.d')
  const write = async (host: string, text: string): Promise<void> => {
    await fs.mkdir(path.join(certsD, host), { recursive: true })
    await fs.writeFile(path.join(certsD, host, 'hosts.toml'), text)
  }
  await write('a.test', `server = "${one.url}"`)
  await write('b.test', 'server = "http://b.invalid"\n[host."')
  const log = new TestLog()
  await using table = await OriginTable.open(testDeps(systemClock, log), optionsOf({ certsD }))
  assert.equal((await table.get('a.test')?.stat(keyOf(DIGEST)))?.size, BYTES.length)
  await assert.rejects(table.get('b.test')!.stat(keyOf(DIGEST)), failsWith('ERR_CONFIG_INVALID', 'hosts.toml:2'))
  assert.ok(log.lines.some(line => line.includes('hosts.toml not used')))

  const before = table.get('a.test')
  await write('a.test', 'server = 7')
  await write('b.test', `server = "${two.url}"`)
  await until(() => log.lines.some(line => line.includes('certs.d read again')), 'the change is noticed')
  assert.equal(table.get('a.test'), before)
  assert.equal((await table.get('b.test')?.stat(keyOf(DIGEST)))?.size, BYTES.length)
})

test('the server of _default is the last for the public registries too, and is told which registry is meant', async () => {
  await using server = await startScriptedOrigin({ blobs })
  const certsD = path.join(directory, 'default-server.d')
  await fs.mkdir(path.join(certsD, '_default'), { recursive: true })
  await fs.writeFile(path.join(certsD, '_default', 'hosts.toml'), `server = "${server.url}"`)
  for (const allowAny of [false, true]) {
    await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ certsD, allowAny }))
    for (const name of ['docker.io', 'any.test']) {
      assert.equal(table.sources(name).length, 1)
      assert.equal((await table.get(name)?.stat(keyOf(DIGEST)))?.size, BYTES.length)
      assert.match(server.requests.at(-1)!.url, new RegExp(`[?&]ns=${name}$`))
    }
  }
})

test('a mirror with the last word, and a server elsewhere, are told which registry is meant', async () => {
  await using one = await startScriptedOrigin({ blobs })
  const certsD = path.join(directory, 'last-word.d')
  const write = async (name: string, text: string): Promise<void> => {
    await fs.mkdir(path.join(certsD, name), { recursive: true })
    await fs.writeFile(path.join(certsD, name, 'hosts.toml'), text)
  }
  const { host } = new URL(one.url)
  await write('mirror.test', `server = "https://push.test"\ncapabilities = ["push"]\n[host."${one.url}"]`)
  await write('elsewhere.test', `server = "${one.url}"`)
  await write(host, `server = "${one.url}"`)
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ certsD }))
  for (const name of ['mirror.test', 'elsewhere.test', host]) {
    assert.equal((await table.get(name)?.stat(keyOf(DIGEST)))?.size, BYTES.length)
    const said = new URL(one.requests.at(-1)!.url, one.url).searchParams.get('ns')
    assert.equal(said, name === host ? null : name)
  }
})

test('dial_timeout of a hosts.toml holds for its server too', async () => {
  // Takes connections, and never says anything of TLS.
  const silent = net.createServer(socket => socket.on('error', () => undefined))
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo
  const certsD = path.join(directory, 'dial-timeout')
  await fs.mkdir(path.join(certsD, 'r.test'), { recursive: true })
  const lines = [`server = "https://127.0.0.1:${port}"`, 'dial_timeout = "100ms"', 'skip_verify = true']
  await fs.writeFile(path.join(certsD, 'r.test', 'hosts.toml'), lines.join('\n'))
  try {
    await using table = await OriginTable.open(
      testDeps(systemClock),
      optionsOf({ certsD, connectTimeoutMs: 3_600_000, retries: 0 }),
    )
    await assert.rejects(async () => table.get('r.test')?.stat(keyOf(DIGEST)), failsWith('ERR_UPSTREAM_TIMEOUT'))
  } finally {
    silent.close()
  }
})

test('mirrors of _default serve every name, but the name itself is no address to dial', async () => {
  await using one = await startScriptedOrigin({ blobs })
  const certsD = path.join(directory, 'default.d')
  await fs.mkdir(path.join(certsD, '_default'), { recursive: true })
  await fs.writeFile(path.join(certsD, '_default', 'hosts.toml'), `[host."${one.url}"]\ncapabilities = ["pull"]`)
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ certsD }))
  assert.equal((await table.get('any.test')?.stat(keyOf(DIGEST)))?.size, BYTES.length)
  assert.match(one.requests[0]!.url, /[?&]ns=any\.test/)
  assert.equal(table.sources('any.test').length, 1)
  assert.equal(table.sources('docker.io').length, 2)
})

test('with allow_any too, mirrors of _default may be at home: only the registry itself is anybody’s name', async () => {
  await using one = await startScriptedOrigin({ blobs })
  const certsD = path.join(directory, 'default-any.d')
  await fs.mkdir(path.join(certsD, '_default'), { recursive: true })
  await fs.writeFile(path.join(certsD, '_default', 'hosts.toml'), `[host."${one.url}"]`)
  await using table = await OriginTable.open(testDeps(systemClock), optionsOf({ certsD, allowAny: true, retries: 0 }))
  const [mirror, registry] = table.sources('localhost:1')
  assert.equal((await mirror!.stat(keyOf(DIGEST)))?.size, BYTES.length)
  await assert.rejects(registry!.stat(keyOf(DIGEST)), failsWith('ERR_UPSTREAM_TRANSPORT', 'EHOSTUNREACH'))
})

test('a _default that cannot be used any longer is said so, and leaves everybody as they were', async () => {
  await using one = await startScriptedOrigin({ blobs })
  const certsD = path.join(directory, 'default-broken.d')
  const file = path.join(certsD, '_default', 'hosts.toml')
  await fs.mkdir(path.dirname(file), { recursive: true })
  await fs.writeFile(file, `[host."${one.url}"]`)
  const log = new TestLog()
  await using table = await OriginTable.open(testDeps(systemClock, log), optionsOf({ certsD }))
  const before = ['any.test', 'docker.io'].map(name => table.get(name))
  await fs.writeFile(file, '[host."')
  await until(() => log.lines.some(line => line.includes('certs.d read again')), 'the change is noticed')
  assert.ok(
    log.lines.some(line => /hosts.toml not used.*_default.*hosts.toml:1/.test(line)),
    log.lines.join('\n'),
  )
  assert.deepEqual(
    ['any.test', 'docker.io'].map(name => table.get(name)),
    before,
  )
  assert.equal((await table.get('other.test')?.stat(keyOf(DIGEST)))?.size, BYTES.length)
})

test('a change of certs.d that is noticed while a reload is under way does not bring the old options back', async t => {
  const certsD = path.join(directory, 'race.d')
  const write = async (text: string): Promise<void> => {
    await fs.mkdir(path.join(certsD, 'a.test'), { recursive: true })
    await fs.writeFile(path.join(certsD, 'a.test', 'hosts.toml'), text)
  }
  await write('server = "http://one.test"')
  const tick = watchTicks(t)
  const log = new TestLog()
  const registries = { 'old.test': at('https://old.test') }
  await using table = await OriginTable.open(testDeps(systemClock, log), optionsOf({ certsD, registries }))
  await write('server = "http://two.test"')
  tick()
  await table.reload(optionsOf({ certsD, registries: { 'new.test': at('https://new.test') } }))
  await manyTurns()
  assert.ok(table.names().includes('new.test') && !table.names().includes('old.test'), table.names().join())
})

test('a certs.d that cannot be read is said so once, and again when that has changed', async t => {
  const certsD = path.join(directory, 'unreadable.d')
  await fs.mkdir(certsD)
  const tick = watchTicks(t)
  const log = new TestLog()
  await using table = await OriginTable.open(testDeps(systemClock, log), optionsOf({ certsD }))
  const before = table.names()
  await fs.rmdir(certsD)
  await fs.writeFile(certsD, 'a file')
  const complaints = (): number => log.lines.filter(line => line.includes('certs.d not used')).length
  await until(() => (tick(), complaints() > 0), 'it is noticed')
  await manyTurns(tick)
  assert.equal(complaints(), 1)
  assert.deepEqual(table.names(), before)
  await fs.rm(certsD)
  await fs.mkdir(path.join(certsD, 'b.test'), { recursive: true })
  await fs.writeFile(path.join(certsD, 'b.test', 'hosts.toml'), 'server = "http://b.test"')
  await until(() => (tick(), table.names().includes('b.test')), 'it is read again')
})

test('a slow mirror that is closed is not taken for one that hangs', async () => {
  await using mirror = await startScriptedOrigin({
    blobs,
    fault: ({ kind }) => (kind === 'blob' ? { delayMs: 1_500 } : undefined),
  })
  await using origin = await startScriptedOrigin()
  const registry = { ...at(origin.url), mirrors: [mirrorAt(mirror.url)] }
  const options = optionsOf({ idleTimeoutMs: 5_000, registries: { 'r.test': registry } })
  await using table = await OriginTable.open(testDeps(systemClock), options)
  const asked = table.sources('r.test')[0]!.stat(keyOf(DIGEST))
  await until(() => mirror.count('blob') === 1, 'the mirror has been asked')
  await table.close()
  assert.equal((await asked)?.size, BYTES.length)
})

test('a token service of the registry that fails is no failure of its mirrors', async () => {
  for (const authThrough of [false, true]) {
    await using origin = await startScriptedOrigin({
      blobs,
      auth: { kind: 'token', tokenAnswer: { expires_in: 0.01 } },
    })
    await using mirror = await startScriptedOrigin({ blobs, auth: { kind: 'token', realm: `${origin.url}/token` } })
    mirror.auth.check = (url, repository, authorization) =>
      authThrough ? origin.auth.check(origin.url, repository, authorization) : undefined
    // Another site than the registry's, as far as a name tells.
    const host = mirror.url.replace('127.0.0.1', 'localhost')
    const registry = { ...at(origin.url), mirrors: [{ ...mirrorAt(host), authThrough }] }
    const options = optionsOf({ retries: 0, registries: { 'r.test': registry } })
    await using table = await OriginTable.open(testDeps(systemClock), options)
    const [first, last] = table.sources('r.test')
    const key = { ...keyOf(DIGEST), registry: 'r.test' }
    assert.equal((await last!.stat(key))?.size, BYTES.length)
    assert.equal((await first!.stat(key))?.size, BYTES.length)
    const tokens = origin.count('token')
    origin.fault = ({ kind }) => (kind === 'token' ? { status: 500 } : undefined)
    await until(async () => (await first!.stat(key), origin.count('token') > tokens), 'a new token is asked for')
    assert.equal(await first!.stat(key), undefined)
    assert.deepEqual(
      table.registries()[0]!.mirrors.map(({ failures, status }) => [failures, status]),
      [[0, 'healthy']],
    )
  }
})

test('where each caller proves its own right, a mirror that checks nothing proves it to nobody', async () => {
  const users = { alice: 'pass:word' }
  for (const authThrough of [false, true]) {
    for (const kind of ['token', 'basic'] as const) {
      await using mirror = await startScriptedOrigin({ blobs })
      await using origin = await startScriptedOrigin({ blobs, auth: { kind, users } })
      const own = { ...at(origin.url), visibility: 'private' } as const
      const registry = { ...own, mirrors: [{ ...mirrorAt(mirror.url), authThrough }] }
      const options = optionsOf({ retries: 0, registries: { 'r.test': registry } })
      await using table = await OriginTable.open(testDeps(systemClock), options)
      const [first, last] = table.sources('r.test')
      const key = { ...keyOf(DIGEST), registry: 'r.test' }
      const token = `Bearer ${origin.auth.tokenFor('alice', key.repository)}`
      const authorization = kind === 'token' ? token : basic('alice', users.alice)
      for (const caller of [{}, { authorization: 'Bearer wrong' }, { authorization }]) {
        assert.equal(await first!.stat(key, caller), undefined)
        assert.equal(await first!.begin!(key, { start: 0, end: 1 }, caller), undefined)
      }
      assert.equal(mirror.requests.length, 0)
      assert.equal((await last!.stat(key, { authorization }))?.visibility, 'private')
      const body = await first!.open(key, { start: 0, end: BYTES.length }, { authorization })
      assert.equal(body === undefined, kind === 'basic', 'a login is for the registry alone')
      if (body !== undefined) assert.deepEqual(await collect(body), BYTES)
    }
  }
})

test('names that nobody has heard of cost little, and not for long', async () => {
  const clock = new TestClock()
  // Nobody's time is ever up.
  clock.sleep = async (_, options) => {
    options!.signal!.throwIfAborted()
    await once(options!.signal!, 'abort')
    throw options!.signal!.reason
  }
  await using table = await OriginTable.open(
    testDeps(clock),
    optionsOf({ registries: { '*': at('http://127.0.0.1:1') }, retries: 0 }),
  )
  const asked = Array.from({ length: 1_000 }, (_, nth) => table.get(`name-${nth}.test`)!)
  assert.notEqual(table.get('name-500.test'), asked[500])
  const isClosed = (): Promise<boolean> =>
    asked[500]!.stat(keyOf(DIGEST)).then(
      () => false,
      (error: unknown) => errorCode(error) === 'ERR_CLOSED',
    )
  await until(isClosed, 'what has not been used for the longest time is closed')
})

function mirrorAt(host: string): MirrorOptions {
  return {
    host,
    overridePath: false,
    headers: { 'X-Dragonfly-Registry': ['https://r.test'] },
    capabilities: ['pull', 'resolve'],
    healthCheckIntervalMs: 1_000,
    failureLimit: 5,
    healthCheckPauseElapsedMs: 60_000,
    authThrough: true,
    tls: PUBLIC_TLS,
  }
}

/** certs.d is looked at when a test says so, and at no other time. */
function watchTicks(t: TestContext): () => void {
  let look = (): void => undefined
  t.mock.method(globalThis, 'setInterval', (callback: () => void) => {
    look = callback
    return undefined
  })
  return () => look()
}

/** Long enough for whatever has begun to end. */
async function manyTurns(each: () => void = () => undefined): Promise<void> {
  let turns = 0
  await until(() => (each(), (turns += 1) > 2_000), 'many turns')
}
