import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { errorCode } from '../../../src/core/index.ts'
import { openKeychain, type Credential, type Keychain, type OpenKeychain } from '../../../src/upstream/auth/index.ts'
import { spelled, TestClock, TestLog } from '../rig.ts'
import { base64, makePrograms, type Programs } from './programs.ts'

interface Opened extends AsyncDisposable {
  readonly keychain: OpenKeychain
  readonly programs: Programs
  readonly clock: TestClock
  readonly log: TestLog
  readonly file: string
}

async function open(config: unknown): Promise<Opened> {
  const programs = await makePrograms()
  const file = await programs.file('config.json', config)
  const [clock, log] = [new TestClock(), new TestLog()]
  const keychain = await openKeychain({ log, clock, env: programs.env }, { dockerConfig: file, plugins: [] })
  return {
    keychain,
    programs,
    clock,
    log,
    file,
    [Symbol.asyncDispose]: async () => {
      await keychain.close()
      await programs[Symbol.asyncDispose]()
    },
  }
}

function get(keychain: Keychain, host: string, refused?: Credential): Promise<Credential | undefined> {
  return keychain.get({ host, repository: 'team/app' }, { refused })
}

function login(username: string, password: string): Credential {
  return { kind: 'password', username, password }
}

test('credentials are found by the name of the registry, however docker spelt it', async () => {
  await using opened = await open({
    auths: {
      'https://index.docker.io/v1/': { auth: base64('hub:with:colons') },
      'registry.corp.test:5000': { username: 'plain', password: 'text' },
      'https://Ghcr.io/v2/': { auth: base64('gh:token\0\0') },
    },
  })
  const { keychain } = opened
  assert.deepEqual(await get(keychain, 'docker.io'), login('hub', 'with:colons'))
  assert.deepEqual(await get(keychain, 'registry-1.docker.io'), login('hub', 'with:colons'))
  assert.deepEqual(await get(keychain, 'Registry.corp.test:5000'), login('plain', 'text'))
  assert.deepEqual(await get(keychain, 'ghcr.io'), login('gh', 'token'))
  assert.equal(await get(keychain, 'registry.corp.test'), undefined)
  assert.equal(await get(keychain, 'not a host'), undefined)
})

test('of several entries for one registry docker’s own spelling counts, wherever it stands', async () => {
  const older = { username: 'older', password: 'x' }
  await using opened = await open({
    auths: {
      'a.test': { username: 'exact', password: 'x' },
      'https://a.test/v1/': older,
      'index.docker.io': older,
      'https://index.docker.io/v1/': { username: 'hub', password: 'x' },
      'docker.io': older,
    },
  })
  assert.deepEqual(await get(opened.keychain, 'a.test'), login('exact', 'x'))
  assert.deepEqual(await get(opened.keychain, 'docker.io'), login('hub', 'x'))
})

test('a token for the registry comes before one for its token service, and that before a login', async () => {
  const both = { auth: base64('user:password') }
  await using opened = await open({
    auths: {
      'a.test': { ...both, identitytoken: 'identity', registrytoken: 'registry' },
      'b.test': { auth: base64('<token>:'), identitytoken: 'identity' },
      'c.test': { ...both, identitytoken: '', registrytoken: '' },
      'd.test': { auth: base64(':registry') },
      'e.test': { username: '', password: 'registry' },
    },
  })
  const { keychain } = opened
  assert.deepEqual(await get(keychain, 'a.test'), { kind: 'bearer', token: 'registry' })
  assert.deepEqual(await get(keychain, 'b.test'), { kind: 'identity-token', token: 'identity' })
  assert.deepEqual(await get(keychain, 'c.test'), login('user', 'password'))
  assert.deepEqual(await get(keychain, 'd.test'), { kind: 'bearer', token: 'registry' })
  assert.deepEqual(await get(keychain, 'e.test'), { kind: 'bearer', token: 'registry' })
})

test('entries without anything usable are passed over', async () => {
  const auths = {
    'a.test': {},
    'b.test': { auth: base64('nocolon') },
    'c.test': { auth: base64('user:') },
    'd.test': { username: 'only' },
    'e.test': 'text',
    'f.test': { identitytoken: 7, auth: '' },
    'g.test': { registrytoken: 'two\r\nlines' },
    'h.test': { identitytoken: 'two\nlines' },
    'a b': { auth: base64('u:p') },
  }
  await using opened = await open({ auths })
  for (const name of Object.keys(auths)) assert.equal(await get(opened.keychain, name), undefined, name)
})

test('the default file is the one docker uses, and its absence means no credentials', async () => {
  await using programs = await makePrograms()
  await programs.file('config.json', { auths: { 'x.test': { auth: base64('u:p') } } })
  const log = new TestLog()
  const openDefault = (env: NodeJS.ProcessEnv): Promise<Keychain> =>
    openKeychain({ log, clock: new TestClock(), env }, { dockerConfig: '', plugins: [] })
  const found = await openDefault({ DOCKER_CONFIG: programs.directory })
  assert.deepEqual(await get(found, 'x.test'), login('u', 'p'))
  const missing = await openDefault({ HOME: path.join(programs.directory, 'nobody') })
  assert.equal(await get(missing, 'x.test'), undefined)
  assert.deepEqual(log.lines, [])
})

test('a default file that comes, changes and goes is followed', async () => {
  await using programs = await makePrograms()
  const [log, clock] = [new TestLog(), new TestClock()]
  const env = { DOCKER_CONFIG: programs.directory }
  const keychain = await openKeychain({ log, clock, env }, { dockerConfig: '', plugins: [] })
  assert.equal(await get(keychain, 'x.test'), undefined)
  const file = await programs.file('config.json', { auths: { 'x.test': { auth: base64('u:p') } } })
  assert.equal(await get(keychain, 'x.test'), undefined, 'looked at a moment ago')
  clock.time += 1_000
  assert.deepEqual(await get(keychain, 'x.test'), login('u', 'p'))
  await fs.rm(file)
  clock.time += 1_000
  assert.equal(await get(keychain, 'x.test'), undefined)
  assert.doesNotMatch(log.lines.join('\n'), /not used/)
})

test('a default file that cannot be used is said so and ignored, without quoting it', async () => {
  await using programs = await makePrograms()
  await fs.mkdir(path.join(programs.directory, '.docker'))
  const file = await programs.file('.docker/config.json', '{"auths":{"x.test":{"auth":"c2VjcmV0"')
  const [log, clock] = [new TestLog(), new TestClock()]
  const keychain = await openKeychain({ log, clock, env: programs.env }, { dockerConfig: '', plugins: [] })
  assert.equal(await get(keychain, 'x.test'), undefined)
  assert.equal(log.lines.length, 1)
  assert.match(log.lines[0]!, /credential file not used/)
  assert.doesNotMatch(log.lines[0]!, /c2Vj/)
  await fs.writeFile(file, JSON.stringify({ auths: { 'x.test': { auth: base64('u:p') } } }))
  clock.time += 1_000
  assert.deepEqual(await get(keychain, 'x.test'), login('u', 'p'), 'until it can be')
})

test('a file that was named must be there and be usable', async () => {
  await using programs = await makePrograms()
  await fs.mkdir(path.join(programs.directory, 'folder'))
  const files = [
    path.join(programs.directory, 'missing.json'),
    path.join(programs.directory, 'folder'),
    await programs.file('broken.json', '{"auths":{"x":{"auth":"c2VjcmV0"'),
    await programs.file('odd.json', { auths: [] }),
    await programs.file('helpers.json', { credHelpers: 'text' }),
    await programs.file('text.json', '"text"'),
    await programs.file('large.json', ' '.repeat(5 * 1024 * 1024)),
  ]
  for (const file of files) {
    const opening = openKeychain({ log: new TestLog(), clock: new TestClock() }, { dockerConfig: file, plugins: [] })
    await assert.rejects(opening, (error: unknown) => {
      assert.equal(errorCode(error), 'ERR_CONFIG_INVALID')
      assert.ok(spelled(error).includes(file))
      assert.ok(!spelled(error).includes('c2Vj'))
      return true
    })
  }
})

test('a file that was replaced is read again within a second', async () => {
  await using opened = await open({ auths: { 'x.test': { username: 'u', password: 'one' } } })
  const { clock, file, keychain, log, programs } = opened
  const draft = await programs.file('draft', { auths: { 'x.test': { username: 'u', password: 'two' } } })
  await fs.rename(draft, file)
  assert.deepEqual(await get(keychain, 'x.test'), login('u', 'one'))
  clock.time += 1_000
  assert.deepEqual(await get(keychain, 'x.test'), login('u', 'two'))
  assert.equal(log.lines.length, 1)
  assert.match(log.lines[0]!, /^credential file read again /)
})

test('a new file that cannot be used leaves the last good one in force, and is said so once', async () => {
  await using opened = await open({ auths: { 'x.test': { username: 'u', password: 'one' } } })
  const { clock, file, keychain, log } = opened
  await fs.writeFile(file, '{"auths": {"x.test": {"password": "half-a-secr')
  for (let nth = 0; nth < 3; nth += 1) {
    clock.time += 1_000
    assert.deepEqual(await get(keychain, 'x.test'), login('u', 'one'))
  }
  await fs.rm(file)
  clock.time += 1_000
  assert.deepEqual(await get(keychain, 'x.test'), login('u', 'one'), 'nor does one that is missing')
  assert.equal(log.lines.length, 2)
  for (const line of log.lines) assert.match(line, /^credential file not used, the last one stays /)
  assert.doesNotMatch(log.lines.join('\n'), /half-a/)
  await fs.writeFile(file, JSON.stringify({ auths: { 'x.test': { username: 'u', password: 'two' } } }))
  clock.time += 1_000
  assert.deepEqual(await get(keychain, 'x.test'), login('u', 'two'))
})

test('after a refusal the file is looked at at once, and only another credential is an answer', async () => {
  await using opened = await open({ auths: { 'x.test': { username: 'u', password: 'one' } } })
  const { file, keychain } = opened
  const one = await get(keychain, 'x.test')
  assert.equal(await get(keychain, 'x.test', one), undefined)
  // As long as the old one, and maybe within the same tick of the file system's clock.
  await fs.writeFile(file, JSON.stringify({ auths: { 'x.test': { username: 'u', password: 'two' } } }))
  assert.deepEqual(await get(keychain, 'x.test', one), login('u', 'two'))
  assert.deepEqual(await get(keychain, 'x.test'), login('u', 'two'))
})

test('many who ask at once do not harm each other', async () => {
  await using opened = await open({ auths: { 'x.test': { username: 'u', password: 'one' } } })
  opened.clock.time += 1_000
  const answers = await Promise.all(Array.from({ length: 20 }, () => get(opened.keychain, 'x.test')))
  assert.deepEqual(new Set(answers.map(answer => answer?.kind)), new Set(['password']))
})

test('whoever has left gets the reason, and after closing nobody gets anything', async () => {
  await using opened = await open({ credHelpers: { 'x.test': 'slow' } })
  const { keychain, programs } = opened
  await programs.write('docker-credential-slow', 'sleep 600')
  const reason = new Error('left')
  const request = { host: 'x.test', repository: 'a' }
  await assert.rejects(keychain.get(request, { signal: AbortSignal.abort(reason) }), reason)
  const controller = new AbortController()
  const leaving = assert.rejects(keychain.get(request, { signal: controller.signal }), reason)
  const staying = keychain.get(request, {}).catch(errorCode)
  controller.abort(reason)
  await leaving
  await keychain.close()
  assert.equal(await staying, 'ERR_CLOSED')
  assert.equal(await keychain.get(request, {}).catch(errorCode), 'ERR_CLOSED')
})
