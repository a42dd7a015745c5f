import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
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
  await using table = await OriginTable.open(testDeps(), optionsOf())
  assert.deepEqual(table.names(), Object.keys(DEFAULT_REGISTRIES).toSorted())
  assert.equal(table.get('docker.io')?.name, 'registry:docker.io')
  assert.equal(table.get('registry.corp.test'), undefined)
})

test('what is configured takes the place of a default, under any spelling', async () => {
  await using origin = await startScriptedOrigin({ blobs })
  const registries = { 'Registry-1.docker.io': at(origin.url) }
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries }))
  assert.equal((await table.get('docker.io')?.stat(keyOf(DIGEST)))?.size, BYTES.length)
  assert.equal(table.names().length, Object.keys(DEFAULT_REGISTRIES).length)
})

test('the entry for any other name answers for it, and for nothing that has an entry', async () => {
  await using any = await startScriptedOrigin({ blobs })
  const registries = { '*': at(any.url) }
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries }))
  assert.ok(
    (await readRange(table.get('registry.corp.test:5000')!, DIGEST, { start: 0, end: 3 })).equals(BYTES.subarray(0, 3)),
  )
  assert.equal(any.requests[0]!.repository, 'library/test')
  assert.equal(table.get('anything')?.name, 'registry:anything')
  assert.equal(table.get('docker.io')?.name, 'registry:docker.io')
  assert.equal(table.get('*'), undefined)
})

test('a directory is an origin under its name', async () => {
  const layout = await makeOciLayout(path.join(directory, 'layout'), { layers: [20] })
  const origins = { demo: { type: 'oci-layout', path: layout.directory } } as const
  await using table = await OriginTable.open(testDeps(), optionsOf({ origins }))
  assert.equal((await table.get('demo')?.stat(keyOf(layout.layers[0]!.digest)))?.size, 20)
})

test('credentials come from the docker config', async () => {
  await using origin = await startScriptedOrigin({ blobs, auth: { kind: 'basic', users: { node: 'pass:word' } } })
  const file = path.join(directory, 'with-auth.json')
  await fs.writeFile(file, JSON.stringify({ auths: { [origin.host]: { auth: basic('node', 'pass:word').slice(6) } } }))
  const registries = { 'registry.test': at(origin.url) }
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries, dockerConfig: file }))
  assert.equal((await table.get('registry.test')?.stat(keyOf(DIGEST)))?.visibility, 'shared')
})

test('a login for Docker Hub does not go to whoever is called docker.io', async () => {
  await using origin = await startScriptedOrigin({ blobs, auth: { kind: 'basic', users: { node: 'pass:word' } } })
  const file = path.join(directory, 'hub.json')
  const hub = { auth: basic('node', 'pass:word').slice(6) }
  await fs.writeFile(file, JSON.stringify({ auths: { 'https://index.docker.io/v1/': hub } }))
  const registries = { 'docker.io': at(origin.url) }
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries, dockerConfig: file }))
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
    await assert.rejects(OriginTable.open(testDeps(), optionsOf(options)), (error: unknown) => {
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
  assert.deepEqual(clock.sleeps, [30_000, 30_000])
})

test('a body that is being read when its origin is replaced is read to its end', async () => {
  await using old = await startScriptedOrigin({ blobs })
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries: { 'moved.test': at(old.url) } }))
  const body = await table.get('moved.test')?.open(keyOf(DIGEST), { start: 0, end: BYTES.length })
  await table.reload(optionsOf())
  assert.deepEqual(await collect(body), BYTES)
})

test('a certificate file that has been replaced, or a new password, is taken up by a reload', async () => {
  await using origin = await startScriptedOrigin({ blobs })
  const entry = at(origin.url)
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries: { 'x.test': entry } }))
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
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries }))
  const before = [table.names(), table.get('x.test')]
  const origins = { demo: { type: 'oci-layout', path: path.join(directory, 'nowhere') } } as const
  const bad = optionsOf({ registries: { 'y.test': at(origin.url) }, origins })
  await assert.rejects(table.reload(bad), failsWith('ERR_CONFIG_INVALID'))
  assert.deepEqual([table.names(), table.get('x.test')], before)
  assert.equal((await table.get('x.test')?.stat(keyOf(DIGEST)))?.size, BYTES.length)
})

test('a closed table refuses everything, and may be closed again', async () => {
  const table = await OriginTable.open(testDeps(), optionsOf())
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
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries: { '*': at(any.url) } }))
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
  await using table = await OriginTable.open(testDeps(), optionsOf({ allowAny: true, connectTimeoutMs: 100 }))
  assert.equal(table.get('registry.example')?.name, 'registry:registry.example')
  for (const name of ['127.0.0.1:5000', '[::1]:5000', '10.0.0.1', '169.254.169.254', '[::ffff:127.0.0.1]']) {
    assert.equal(table.get(name), undefined, name)
  }
  await assert.rejects(table.get('localhost')!.stat(keyOf(DIGEST)), failsWith('ERR_UPSTREAM_TRANSPORT', 'EHOSTUNREACH'))
})

test('an address that is allowed may be a registry although it is private', async () => {
  const options = optionsOf({ allowAny: true, allowPrivate: ['10.0.0.0/8'] })
  await using table = await OriginTable.open(testDeps(), options)
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
  await using table = await OriginTable.open(testDeps(new TestClock(), log), optionsOf({ certsD }))
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
