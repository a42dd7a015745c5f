import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { errorCode, type ErrorCode } from '../../src/core/index.ts'
import { DEFAULT_REGISTRIES, OriginTable, RegistryOrigin, type OriginTableOptions } from '../../src/upstream/index.ts'
import { makeOciLayout } from '../support/oci-layout-maker.ts'
import { basic, digestOf, startScriptedOrigin } from '../support/scripted-origin.ts'
import { collect, keyOf, readRange, TestClock, TestLog, testDeps, until } from './rig.ts'

const BYTES = Buffer.from('a small blob')
const DIGEST = digestOf(BYTES)
const blobs = new Map([[DIGEST, BYTES]])
const TLS = { skipVerify: false }

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
  const registries = { 'Registry-1.docker.io': { host: origin.url, tls: TLS } }
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries }))
  assert.equal((await table.get('docker.io')?.stat(keyOf(DIGEST)))?.size, BYTES.length)
  assert.equal(table.names().length, Object.keys(DEFAULT_REGISTRIES).length)
})

test('the entry for any other name answers for it, and for nothing that has an entry', async () => {
  await using any = await startScriptedOrigin({ blobs })
  const registries = { '*': { host: any.url, tls: TLS } }
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries }))
  assert.ok(
    (await readRange(table.get('registry.corp.test:5000')!, DIGEST, { start: 0, end: 3 })).equals(BYTES.subarray(0, 3)),
  )
  assert.equal(any.requests[0]!.repository, 'library/test')
  assert.equal(table.get('anything')?.name, 'registry:*')
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
  const registries = { 'registry.test': { host: origin.url, tls: TLS } }
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries, dockerConfig: file }))
  assert.equal((await table.get('registry.test')?.stat(keyOf(DIGEST)))?.visibility, 'shared')
})

test('a login for Docker Hub does not go to whoever is called docker.io', async () => {
  await using origin = await startScriptedOrigin({ blobs, auth: { kind: 'basic', users: { node: 'pass:word' } } })
  const file = path.join(directory, 'hub.json')
  const hub = { auth: basic('node', 'pass:word').slice(6) }
  await fs.writeFile(file, JSON.stringify({ auths: { 'https://index.docker.io/v1/': hub } }))
  const registries = { 'docker.io': { host: origin.url, tls: TLS } }
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries, dockerConfig: file }))
  await assert.rejects(table.get('docker.io')!.stat(keyOf(DIGEST)), failsWith('ERR_UPSTREAM_AUTH'))
  assert.ok(origin.requests.every(({ headers }) => headers.authorization === undefined))
})

test('what cannot be used is an error of the configuration that never repeats a password', async () => {
  const layout = await makeOciLayout(path.join(directory, 'twice'), { layers: [1] })
  const wrong: [Partial<OriginTableOptions>, string][] = [
    [{ registries: { x: { host: 'registry.test', tls: TLS } } }, 'registries."x".host'],
    [{ registries: { x: { host: 'ftp://registry.test', tls: TLS } } }, 'https://'],
    [{ registries: { x: { host: 'https://u:secret@registry.test', tls: TLS } } }, 'credential'],
    [{ registries: { x: { host: 'https://registry.test/?token=secret', tls: TLS } } }, 'query'],
    [{ registries: { 'not a host': { host: 'https://registry.test', tls: TLS } } }, 'not a host name'],
    [
      {
        registries: {
          'docker.io': { host: 'https://a', tls: TLS },
          'index.docker.io': { host: 'https://b', tls: TLS },
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
  const entry = (host: string): { host: string; tls: typeof TLS } => ({ host, tls: TLS })
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
  await using table = await OriginTable.open(
    testDeps(),
    optionsOf({ registries: { 'moved.test': { host: old.url, tls: TLS } } }),
  )
  const body = await table.get('moved.test')?.open(keyOf(DIGEST), { start: 0, end: BYTES.length })
  await table.reload(optionsOf())
  assert.deepEqual(await collect(body), BYTES)
})

test('a certificate file that has been replaced, or a new password, is taken up by a reload', async () => {
  await using origin = await startScriptedOrigin({ blobs })
  const entry = { host: origin.url, tls: TLS }
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
  await table.reload(optionsOf({ registries: { 'x.test': entry } }))
  const third = table.get('x.test')
  await fs.writeFile(dockerConfig, '{}')
  await table.reload(optionsOf({ registries: { 'x.test': entry } }))
  assert.notEqual(table.get('x.test'), third, 'a login that is gone from the docker config')
})

test('a bad reload changes nothing', async () => {
  await using origin = await startScriptedOrigin({ blobs })
  const registries = { 'x.test': { host: origin.url, tls: TLS } }
  await using table = await OriginTable.open(testDeps(), optionsOf({ registries }))
  const before = [table.names(), table.get('x.test')]
  const origins = { demo: { type: 'oci-layout', path: path.join(directory, 'nowhere') } } as const
  const bad = optionsOf({ registries: { 'y.test': { host: origin.url, tls: TLS } }, origins })
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
  const table = await OriginTable.open(
    testDeps(clock),
    optionsOf({ registries: { 'x.test': { host: 'https://x.test', tls: TLS } } }),
  )
  const replaced = table.get('x.test')!
  await table.reload(optionsOf())
  await table.close()
  await assert.rejects(replaced.stat(keyOf(DIGEST)), failsWith('ERR_CLOSED'))
})

test('an origin that cannot be closed is said so and harms nobody', async t => {
  const log = new TestLog()
  const options = optionsOf({ registries: { 'x.test': { host: 'https://x.test', tls: TLS } } })
  await using table = await OriginTable.open(testDeps(new TestClock(), log), options)
  const replaced = table.get('x.test')
  assert.ok(replaced instanceof RegistryOrigin)
  t.mock.method(replaced, 'close', () => Promise.reject(new Error('stuck')))
  await table.reload(optionsOf())
  await until(() => log.lines.length > 0, 'the failure is logged')
  assert.match(log.lines[0]!, /origin not closed cleanly.*stuck/)
})
