import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import fs from 'node:fs/promises'
import path from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { request } from 'undici'
import { run } from '../support/child.ts'
import { blobUrl, compareBlob, fetchBlob } from '../support/client.ts'
import { digestOf, generatedBlob } from '../support/generated-blob.ts'
import { startScriptedOrigin, type ScriptedOrigin } from '../support/scripted-origin.ts'
import { startShoal } from '../support/shoal.ts'
import { skipWithout, temporaryDirectory } from '../support/tools.ts'
import { until } from '../support/until.ts'

const MIB = 1024 * 1024
const execute = promisify(execFile)
const BIN = fileURLToPath(new URL('../../src/main.js', import.meta.url))

function configFor(origin: ScriptedOrigin, more: Record<string, unknown> = {}) {
  return {
    mirror: { default_registry: 'origin.test', listen: ['127.0.0.1:0'] },
    registries: { 'origin.test': { host: origin.url } },
    ...more,
  }
}

async function dataFile(state: string, digest: string): Promise<string> {
  const hex = digest.split(':')[1] ?? ''
  const folder = path.join(state, 'blobs', 'sha256', hex.slice(0, 2))
  const file = path.join(folder, hex)
  await fs.access(file)
  return file
}

describe('a running daemon', () => {
  test('ten clients that ask for one cold blob cost the origin one copy', async () => {
    await using origin = await startScriptedOrigin()
    const content = generatedBlob(40 * MIB + 1)
    const digest = origin.add(content)
    await using shoal = await startShoal({ config: configFor(origin) })
    const sizes = await Promise.all(
      Array.from({ length: 10 }, () => compareBlob({ mirror: shoal.mirror, digest }, content)),
    )
    assert.deepEqual(
      sizes,
      Array.from({ length: 10 }, () => content.size),
    )
    assert.equal(origin.bytesSent.get(digest), content.size)
  })

  test('a small cold blob is one request at the origin, and one that ignores Range sends it once', async () => {
    await using origin = await startScriptedOrigin()
    await using shoal = await startShoal({ config: configFor(origin) })
    const small = generatedBlob(5000)
    assert.equal(await compareBlob({ mirror: shoal.mirror, digest: origin.add(small) }, small), 5000)
    assert.deepEqual(
      origin.requests.filter(seen => seen.kind === 'blob').map(seen => seen.method),
      ['GET'],
    )
    origin.fault = () => ({ ignoreRange: true })
    const large = generatedBlob(50 * MIB, 2)
    const digest = origin.add(large)
    assert.equal(await compareBlob({ mirror: shoal.mirror, digest }, large), large.size)
    assert.ok((origin.bytesSent.get(digest) ?? 0) < 2.5 * large.size, `${origin.bytesSent.get(digest)} bytes sent`)
  })

  test('SIGTERM lets a request under way finish, and takes no new one', async () => {
    await using origin = await startScriptedOrigin()
    const content = generatedBlob(8 * MIB)
    const digest = origin.add(content)
    origin.fault = () => ({ bytesPerSecond: 8 * MIB })
    await using shoal = await startShoal({ config: configFor(origin) })
    const reading = compareBlob({ mirror: shoal.mirror, digest }, content)
    await until(() => (origin.bytesSent.get(digest) ?? 0) > MIB)
    const stopping = shoal.stop({ graceMs: 20_000 })
    await shoal.waitForRecord(record => record.msg === 'draining')
    // It asks for another configuration, not for a quicker end.
    shoal.kill('SIGHUP')
    await assert.rejects(request(blobUrl({ mirror: shoal.mirror, digest })))
    assert.equal(await reading, content.size)
    assert.deepEqual(await stopping, { code: 0, signal: null })
  })

  test('SIGHUP takes over new registries, and a bad file keeps the old ones, loudly', async () => {
    await using directory = await temporaryDirectory()
    await using origin = await startScriptedOrigin()
    const content = generatedBlob(1000)
    const digest = origin.add(content)
    await using shoal = await startShoal({ config: configFor(origin), directory: directory.path })
    const file = path.join(directory.path, 'shoal.toml')
    const before = await fs.readFile(file, 'utf8')
    const other = { mirror: shoal.mirror, digest, registry: 'second.test' }
    assert.equal((await fetchBlob(other)).status, 403)
    await fs.writeFile(file, `${before}\n[registries."second.test"]\nhost = "${origin.url}"\n`)
    shoal.kill('SIGHUP')
    await shoal.waitForRecord(record => record.msg === 'configuration reloaded')
    assert.equal(await compareBlob(other, content), content.size)
    await fs.writeFile(file, `${before}\n[registrys]\n`)
    shoal.kill('SIGHUP')
    await shoal.waitForRecord(record => record.msg === 'new configuration refused, the old one stays')
    assert.equal(await compareBlob(other, content), content.size)
  })

  test('a password file that has been replaced is noticed without a signal, and what takes a restart is said so', async () => {
    await using directory = await temporaryDirectory()
    await using origin = await startScriptedOrigin({ auth: { kind: 'basic', users: { node: 'new-password' } } })
    const content = generatedBlob(1000)
    const digest = origin.add(content)
    const secret = path.join(directory.path, 'password')
    await fs.writeFile(secret, 'old-password', { mode: 0o600 })
    const registries = { 'registry.test': { host: origin.url, username: 'node', password_file: secret } }
    await using shoal = await startShoal({ config: { registries }, directory: directory.path })
    const asked = { mirror: shoal.mirror, digest, registry: 'registry.test' }
    assert.equal((await fetchBlob(asked)).status, 401)
    const file = path.join(directory.path, 'shoal.toml')
    await fs.appendFile(file, '\n[manifests]\ntag_ttl = "2m"\n')
    await fs.writeFile(secret, 'new-password')
    await shoal.waitForRecord(record => record.msg === 'configuration reloaded')
    await until(async () => (await fetchBlob(asked)).status === 200)
    const { keys } = await shoal.waitForRecord(record => record.msg === 'changed keys that take a restart')
    assert.deepEqual(keys, ['manifests'])
  })

  test('the health listener tells whether it is alive, ready, and how it fares', async () => {
    await using origin = await startScriptedOrigin()
    await using shoal = await startShoal({ config: configFor(origin) })
    const get = async (route: string) => {
      const answer = await request(`${shoal.health}${route}`)
      return { status: answer.statusCode, text: await answer.body.text() }
    }
    assert.equal((await get('/server/ping')).status, 200)
    assert.equal((await get('/healthy')).status, 200)
    assert.equal((await get('/readyz')).status, 200)
    await fetchBlob({ mirror: shoal.mirror, digest: origin.add(generatedBlob(1000)) })
    const { text } = await get('/metrics')
    for (const name of [
      'shoal_http_requests_total',
      'shoal_fetched_bytes_total 1000',
      'shoal_store_bytes',
      'shoal_upstream_requests_total',
    ]) {
      assert.ok(text.includes(name), name)
    }
    assert.equal((await get('/nothing')).status, 404)
  })

  test('a second daemon on the same state is refused with the pid of the first', async () => {
    await using directory = await temporaryDirectory()
    await using origin = await startScriptedOrigin()
    await using shoal = await startShoal({ config: configFor(origin), directory: directory.path })
    await assert.rejects(
      startShoal({ config: configFor(origin), directory: directory.path }),
      new RegExp(`process ${shoal.pid} already uses`),
    )
    assert.equal((await fetchBlob({ mirror: shoal.mirror, digest: origin.add(generatedBlob(10)) })).status, 200)
  })

  test('a port in use, an unknown key and a bad command each end with one sentence and their own exit code', async () => {
    const attempt = (args: string[]) => spawnSync(process.execPath, [BIN, ...args], { encoding: 'utf8' })
    await using directory = await temporaryDirectory()
    const file = path.join(directory.path, 'bad.toml')
    await fs.writeFile(file, '[store]\nmax_byte = "1GiB"\n')
    const unknown = attempt(['serve', '--config', file])
    assert.equal(unknown.status, 78)
    assert.match(unknown.stderr, /store\.max_byte\b.*store\.max_bytes/s)
    assert.equal(attempt(['nonsense']).status, 64)
    await using origin = await startScriptedOrigin()
    await using shoal = await startShoal({ config: configFor(origin) })
    const inUse = attempt([
      'serve',
      '--set',
      `state.path=${directory.path}`,
      '--set',
      `mirror.listen=["${shoal.mirrorHost}"]`,
    ])
    assert.notEqual(inUse.status, 0)
    assert.match(inUse.stderr, /EADDRINUSE/)
    assert.ok(!inUse.stderr.includes('    at '), 'no stack for a person')
  })
})

const CANNOT_FILL_A_DISK = await skipWithout(['mount', 'umount'], { root: true })

describe('a state directory that is not what it should be', () => {
  test('a flipped byte in a data file is found and fetched again', async () => {
    await using directory = await temporaryDirectory()
    await using origin = await startScriptedOrigin()
    const content = generatedBlob(3 * MIB)
    const digest = origin.add(content)
    {
      await using shoal = await startShoal({ config: configFor(origin), directory: directory.path })
      await compareBlob({ mirror: shoal.mirror, digest }, content)
      await shoal.stop()
      const file = await dataFile(shoal.state, digest)
      const handle = await fs.open(file, 'r+')
      const byte = Buffer.alloc(1)
      await handle.read(byte, 0, 1, MIB + 7)
      byte[0] = byte[0]! ^ 0xff
      await handle.write(byte, 0, 1, MIB + 7)
      await handle.close()
    }
    const before = origin.bytesSent.get(digest) ?? 0
    await using shoal = await startShoal({ config: configFor(origin), directory: directory.path })
    assert.equal(await compareBlob({ mirror: shoal.mirror, digest }, content), content.size)
    assert.equal((origin.bytesSent.get(digest) ?? 0) - before, 256 * 1024)
    await shoal.waitForRecord(record => record.msg === 'bad block dropped')
  })

  for (const [what, spoil] of [
    ['a corrupt index', async (file: string) => fs.writeFile(file, randomBytes(100_000))],
    [
      'an index of a newer version',
      async (file: string) => {
        const { default: Database } = await import('better-sqlite3')
        const db = new Database(file)
        db.pragma('user_version = 9999')
        db.close()
      },
    ],
  ] as const) {
    test(`${what} is kept aside under another name, said so, and the daemon starts`, async () => {
      await using directory = await temporaryDirectory()
      await using origin = await startScriptedOrigin()
      const content = generatedBlob(MIB)
      const digest = origin.add(content)
      let state: string
      {
        await using shoal = await startShoal({ config: configFor(origin), directory: directory.path })
        await compareBlob({ mirror: shoal.mirror, digest }, content)
        await shoal.stop()
        state = shoal.state
      }
      const index = path.join(state, 'index.db')
      await fs.rm(`${index}-wal`, { force: true })
      await spoil(index)
      const spoiled = await fs.readFile(index)
      await using shoal = await startShoal({ config: configFor(origin), directory: directory.path })
      assert.equal(await compareBlob({ mirror: shoal.mirror, digest }, content), content.size)
      const aside = (await fs.readdir(state)).filter(name => name.startsWith('index.db.'))
      assert.equal(aside.length, 1, aside.join())
      assert.ok((await fs.readFile(path.join(state, aside[0]!))).equals(spoiled))
      assert.ok(shoal.lines.some(line => line.includes(aside[0]!)))
    })
  }

  test('a disk that fills up costs no client anything', { skip: CANNOT_FILL_A_DISK }, async () => {
    await using directory = await temporaryDirectory()
    await run('mount', ['-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', directory.path])
    try {
      await using origin = await startScriptedOrigin()
      const config = configFor(origin, { store: { max_bytes: '1GiB', min_free_bytes: '0' } })
      const blobs = [1, 2, 3].map(seed => generatedBlob(9 * MIB, seed))
      await using shoal = await startShoal({ config, directory: directory.path })
      for (const content of blobs) {
        const digest = origin.add(content)
        for (let round = 0; round < 2; round += 1)
          assert.equal(await compareBlob({ mirror: shoal.mirror, digest }, content), content.size)
      }
      const metrics = await (await request(`${shoal.health}/metrics`)).body.text()
      const unstored = Number(/^shoal_unstored_bytes_total (\d+)/m.exec(metrics)?.[1])
      assert.ok(unstored > 0, 'what the disk does not take is counted')
      assert.ok((await request(`${shoal.health}/readyz`)).statusCode < 500)
      await shoal.stop()
    } finally {
      await run('umount', ['-l', directory.path])
    }
  })
})

describe('shoal cache and shoal status', () => {
  test('work through the running daemon, and on the store itself when none runs', async () => {
    await using directory = await temporaryDirectory()
    await using origin = await startScriptedOrigin()
    const content = generatedBlob(2 * MIB)
    const digest = origin.add(content)
    const other = origin.add(generatedBlob(5000, 2))
    const config = path.join(directory.path, 'shoal.toml')
    const shoalCommand = async (...args: string[]): Promise<string> =>
      (await execute(process.execPath, [BIN, ...args, '--config', config])).stdout
    const json = async (...args: string[]): Promise<Record<string, unknown>[]> =>
      (await shoalCommand(...args, '--json'))
        .split('\n')
        .filter(line => line !== '')
        .map(line => JSON.parse(line) as Record<string, unknown>)
    for (const running of [true, false]) {
      await using shoal = await startShoal({ config: configFor(origin), directory: directory.path })
      await compareBlob({ mirror: shoal.mirror, digest }, content)
      await fetchBlob({ mirror: shoal.mirror, digest: other })
      await until(async () => (await json('cache', 'ls')).every(blob => blob['state'] === 'complete'))
      if (!running) await shoal.stop()

      assert.equal((await json('status'))[0]?.['daemon'], running)
      const listed = await json('cache', 'ls')
      assert.deepEqual(
        listed.map(blob => [blob['digest'], blob['size'], blob['presentBytes']]).sort(),
        [
          [digest, content.size, content.size],
          [other, 5000, 5000],
        ].sort(),
      )
      assert.match(await shoalCommand('cache', 'ls'), new RegExp(`${digest}\\s+2\\.0 MiB\\s+100 %\\s+complete`))
      assert.equal((await json('cache', 'verify'))[0]?.['badBlocks'], 0)
      await json('cache', 'pin', digest)
      assert.equal((await json('cache', 'gc', '--target', '0'))[0]?.['blobs'], 1)
      assert.deepEqual(
        (await json('cache', 'ls')).map(blob => [blob['digest'], blob['pinned']]),
        [[digest, true]],
      )
      assert.equal((await json('cache', 'rm', digest))[0]?.['freedBytes'], content.size)
      assert.deepEqual(await json('cache', 'ls'), [])
      await assert.rejects(shoalCommand('cache', 'rm', digest), /is not in the cache/)
      await assert.rejects(shoalCommand('cache', 'rm', 'sha256:x'), /is not a digest/)
      await assert.rejects(shoalCommand('cache', 'gc', '--target', 'much'), /not a size/)
    }
  })
})

test('no secret is in any log line', async () => {
  const secrets = {
    password: 'pa55-of-the-node',
    caller: 'token-of-a-caller',
    query: 'query-secret',
    userinfo: 'userinfo-secret',
  }
  await using directory = await temporaryDirectory()
  const passwordFile = path.join(directory.path, 'password')
  await fs.writeFile(passwordFile, secrets.password, { mode: 0o600 })
  await using cdn = await startScriptedOrigin()
  const basic = Buffer.from(`node:${secrets.password}`).toString('base64')
  await using origin = await startScriptedOrigin({ cdn, auth: { kind: 'token', users: { node: secrets.password } } })
  const content = generatedBlob(3 * MIB)
  const digest = digestOf(content)
  cdn.add(content, digest)
  const registry = { host: origin.url, username: 'node', password_file: passwordFile }
  const config = configFor(origin, { registries: { 'origin.test': registry }, log: { level: 'debug', access: true } })
  await using shoal = await startShoal({ config, directory: directory.path })
  const address = { mirror: shoal.mirror, digest }
  const headers = { authorization: `Bearer ${secrets.caller}`, cookie: `session=${secrets.caller}` }
  await fetchBlob(address, '0-9', headers)
  await compareBlob(address, content)
  await request(`${shoal.mirror}/v2/library/test/tags/list?token=${secrets.query}`, { headers })
  for (const fault of [
    { status: 500, body: `oops ${secrets.query}` },
    { status: 401, headers: { 'www-authenticate': `Bearer realm="${origin.url}/token?k=${secrets.query}"` } },
    { reset: 'before-headers' },
    { wrongBytes: true },
  ] as const) {
    origin.fault = () => fault
    cdn.fault = () => fault
    await fetchBlob(
      { ...address, repository: `other/${Math.random().toString(36).slice(2)}` },
      undefined,
      headers,
    ).catch(() => undefined)
  }
  origin.fault = () => undefined
  await delay(50)
  await shoal.stop()
  const signatures = cdn.requests.flatMap(seen => /X-Signature=(\S+)/.exec(seen.url)?.slice(1) ?? [])
  const tokens = origin.requests.flatMap(seen => /^Bearer (\S+)/.exec(seen.headers.authorization ?? '')?.slice(1) ?? [])
  assert.ok(signatures.length > 0, 'the test reached the signed URL')
  assert.ok(tokens.length > 0, 'the test used a token')
  const log = shoal.lines.join('\n')
  assert.ok(log.includes('"access"'))
  for (const secret of [...Object.values(secrets), basic, ...signatures, ...tokens]) {
    assert.ok(!log.includes(secret), `${secret} is in the log`)
  }
})
