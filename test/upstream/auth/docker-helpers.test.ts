import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openKeychain, type Credential, type OpenKeychain } from '../../../src/upstream/auth/index.ts'
import { TestClock, TestLog } from '../rig.ts'
import { base64, makePrograms, type Programs } from './programs.ts'

const HELPER = 'docker-credential-vault'
const LOGIN = { kind: 'password', username: 'u', password: 'p' } as const

interface Opened extends AsyncDisposable {
  readonly programs: Programs
  readonly clock: TestClock
  readonly log: TestLog
  readonly get: (host: string, refused?: Credential) => Promise<Credential | undefined>
}

async function open(config: object, script: string): Promise<Opened> {
  const programs = await makePrograms()
  await programs.write(HELPER, script)
  const [clock, log] = [new TestClock(), new TestLog()]
  const dockerConfig = await programs.file('config.json', config)
  const keychain: OpenKeychain = await openKeychain(
    { log, clock, env: programs.env },
    { dockerConfig, plugins: [], programTimeoutMs: 1_000 },
  )
  return {
    programs,
    clock,
    log,
    get: (host, refused) => keychain.get({ host, repository: 'team/app' }, { refused }),
    [Symbol.asyncDispose]: async () => {
      await keychain.close()
      await programs[Symbol.asyncDispose]()
    },
  }
}

/** A helper's answer. */
function says(username: string, secret: string): string {
  return `printf '%s' '${JSON.stringify({ ServerURL: 'x', Username: username, Secret: secret })}'`
}

const ALL = { credsStore: 'vault' }

test('a helper is asked for the registry, by the name that docker uses, and its answer kept for five minutes', async () => {
  await using opened = await open(ALL, `[ "$1" = get ] && ${says('u', 'p')}`)
  const { clock, get, programs } = opened
  assert.deepEqual(await get('registry.test:5000'), LOGIN)
  assert.equal(await programs.input(HELPER), 'registry.test:5000')
  clock.time += 299_000
  assert.deepEqual(await get('registry.test:5000'), LOGIN)
  assert.equal(await programs.calls(HELPER), 1)
  clock.time += 2_000
  assert.deepEqual(await get('registry.test:5000'), LOGIN)
  assert.equal(await programs.calls(HELPER), 2)
  assert.deepEqual(await get('registry-1.docker.io'), LOGIN)
  assert.equal(await programs.input(HELPER), 'https://index.docker.io/v1/')
})

test('a helper hands out identity tokens, and registry tokens', async () => {
  const script = `case $(cat "$0.input") in
    a.test) ${says('<token>', 'refresh')};;
    b.test) ${says('', 'registry')};;
  esac`
  await using opened = await open(ALL, script)
  assert.deepEqual(await opened.get('a.test'), { kind: 'identity-token', token: 'refresh' })
  assert.deepEqual(await opened.get('b.test'), { kind: 'bearer', token: 'registry' })
})

test('a registry’s own helper comes before the one for all, and that before the file', async () => {
  const config = {
    credsStore: 'vault',
    credHelpers: { 'own.test': 'own', 'https://index.docker.io/v1/': 'own', 'none.test': '' },
    auths: {
      'own.test': { auth: base64('file:f') },
      'all.test': { auth: base64('file:f') },
      'none.test': { auth: base64('file:f') },
    },
  }
  await using opened = await open(config, says('all', 'a'))
  await opened.programs.write('docker-credential-own', says('own', 'o'))
  const nameFor = async (host: string): Promise<string | undefined> => {
    const credential = await opened.get(host)
    return credential?.kind === 'password' ? credential.username : undefined
  }
  assert.equal(await nameFor('own.test'), 'own')
  assert.equal(await nameFor('docker.io'), 'own')
  assert.equal(await nameFor('all.test'), 'all')
  assert.equal(await nameFor('none.test'), 'file')
})

test('where a helper has nothing the file is asked, and that is no failure', async () => {
  const script = 'echo "credentials not found in native keychain"; exit 1'
  await using opened = await open({ ...ALL, auths: { 'x.test': { auth: base64('u:p') } } }, script)
  const { clock, get, log, programs } = opened
  assert.deepEqual(await get('x.test'), LOGIN)
  assert.equal(await get('y.test'), undefined)
  assert.deepEqual(log.lines, [])
  await programs.write(HELPER, says('u', 'new'))
  clock.time += 30_000
  assert.deepEqual(await get('y.test'), { ...LOGIN, password: 'new' }, 'a login is found soon')
})

for (const [what, script, cause] of [
  ['fails', 'echo "the secret: hunter2"; echo "vault is sealed" >&2; exit 2', 'exit code 2: vault is sealed'],
  ['hangs', 'sleep 600', 'did not end within 1000 ms'],
  ['prints nonsense', 'echo hunter2', 'printed no login'],
  ['prints an answer without a secret', 'echo \'{"Username":"u"}\'', 'printed no login'],
  ['prints what no header can carry', says('<token>', 'a\nb'), 'printed no login'],
] as const) {
  test(`a helper that ${what} is a logged failure of its own host, remembered for half a minute`, async () => {
    const config = { credHelpers: { 'x.test': 'vault' }, auths: { 'y.test': { auth: base64('u:p') } } }
    await using opened = await open(config, script)
    const { clock, get, log, programs } = opened
    assert.equal(await get('x.test'), undefined)
    assert.equal(await get('x.test'), undefined)
    assert.deepEqual(await get('y.test'), LOGIN)
    assert.equal(await programs.calls(HELPER), 1)
    assert.equal(log.lines.length, 1)
    assert.equal(
      log.lines[0],
      `credential helper failed ${JSON.stringify({ helper: HELPER, registry: 'x.test', cause })}`,
    )
    await programs.write(HELPER, says('u', 'p'))
    clock.time += 30_000
    assert.deepEqual(await get('x.test'), LOGIN)
  })
}

test('a helper that is missing, or is none by its name, is a failure of its own host', async () => {
  const config = { credHelpers: { 'x.test': 'nowhere', 'y.test': '../vault', 'z.test': 'vault' } }
  await using opened = await open(config, says('u', 'p'))
  const { get, log } = opened
  assert.equal(await get('x.test'), undefined)
  assert.equal(await get('y.test'), undefined)
  assert.deepEqual(await get('z.test'), LOGIN)
  assert.match(log.lines.join('\n'), /not a name.*y\.test|y\.test.*not a name/)
  assert.match(log.lines.join('\n'), /docker-credential-nowhere.*ENOENT/)
})

test('a helper that goes on failing is said so once a minute', async () => {
  await using opened = await open(ALL, 'exit 2')
  const { clock, get, log, programs } = opened
  for (const host of ['a.test', 'b.test', 'c.test']) await get(host)
  assert.equal(log.lines.length, 1)
  clock.time += 60_000
  await get('a.test')
  assert.equal(log.lines.length, 2)
  assert.equal(await programs.calls(HELPER), 4)
})

test('while a helper fails, its last answer still holds, unless that was refused', async () => {
  await using opened = await open(ALL, says('u', 'p'))
  const { clock, get, log, programs } = opened
  assert.deepEqual(await get('x.test'), LOGIN)
  await programs.write(HELPER, 'exit 2')
  clock.time += 300_000
  assert.deepEqual(await get('x.test'), LOGIN)
  assert.equal(log.lines.length, 1)
  clock.time += 1_000
  assert.equal(await get('x.test', LOGIN), undefined)
  assert.equal(await get('x.test'), undefined)
  await programs.write(HELPER, says('u', 'new'))
  clock.time += 30_000
  assert.deepEqual(await get('x.test'), { ...LOGIN, password: 'new' })
})

test('many who want the same cause one call, which goes on when they leave', async () => {
  await using programs = await makePrograms()
  await programs.write(HELPER, `while [ ! -e ${programs.directory}/go ]; do sleep 0.02; done; ${says('u', 'p')}`)
  const dockerConfig = await programs.file('config.json', ALL)
  await using keychain = await openKeychain(
    { log: new TestLog(), clock: new TestClock(), env: programs.env },
    { dockerConfig, plugins: [] },
  )
  const controller = new AbortController()
  const { signal } = controller
  const waiting = Array.from({ length: 8 }, (_, nth) =>
    keychain.get({ host: 'x.test', repository: `r${nth}` }, { signal }).catch(() => 'left'),
  )
  controller.abort(new Error('left'))
  assert.deepEqual(new Set(await Promise.all(waiting)), new Set(['left']))
  await programs.file('go', '')
  assert.deepEqual(await keychain.get({ host: 'x.test', repository: 'r' }, {}), LOGIN)
  assert.equal(await programs.calls(HELPER), 1)
})

test('after a refusal the helper is asked anew, once a second, and what it repeats is not kept for long', async () => {
  await using opened = await open(ALL, says('u', 'p'))
  const { clock, get, programs } = opened
  assert.deepEqual(await get('x.test'), LOGIN)
  assert.equal(await get('x.test', LOGIN), undefined)
  assert.equal(await programs.calls(HELPER), 1, 'it has only just said so')
  clock.time += 1_000
  assert.equal(await get('x.test', LOGIN), undefined)
  assert.equal(await programs.calls(HELPER), 2)

  const renewed = { ...LOGIN, password: 'new' }
  await programs.write(HELPER, says('u', 'new'))
  clock.time += 1_000
  assert.deepEqual(await get('x.test', LOGIN), renewed)
  assert.deepEqual(await get('x.test'), renewed)
  assert.deepEqual(await get('x.test', LOGIN), renewed, 'who was refused the old one gets the new one')
  assert.equal(await programs.calls(HELPER), 3)

  clock.time += 1_000
  assert.equal(await get('x.test', renewed), undefined)
  await programs.write(HELPER, says('u', 'newest'))
  clock.time += 30_000
  assert.deepEqual(await get('x.test'), { ...LOGIN, password: 'newest' })
})
