import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import { test } from 'node:test'
import { errorCode } from '../../../src/core/index.ts'
import { openKeychain, type Credential } from '../../../src/upstream/auth/index.ts'
import { parsePluginConfig } from '../../../src/upstream/auth/plugin-config.ts'
import { spelled, TestClock, TestLog } from '../rig.ts'
import { base64, makePrograms, type Programs } from './programs.ts'

const API = 'credentialprovider.kubelet.k8s.io/v1'
const LOGIN = { kind: 'password', username: 'u', password: 'p' } as const

const CONFIG = `# as on a node
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr
    matchImages: ["*.dkr.ecr.*.amazonaws.com", "registry.test", "*.registry.test/team"]
    defaultCacheDuration: 12h
    apiVersion: ${API}
    args: [get-credentials, --verbose]
    env:
      - name: AWS_PROFILE
        value: node
`

interface Opened extends AsyncDisposable {
  readonly programs: Programs
  readonly clock: TestClock
  readonly log: TestLog
  readonly config: string
  readonly get: (image: string, refused?: Credential) => Promise<Credential | undefined>
}

async function open(config: string, scripts: Record<string, string>, dockerConfig: unknown = {}): Promise<Opened> {
  const programs = await makePrograms()
  for (const [name, script] of Object.entries(scripts)) await programs.write(name, script)
  const [clock, log] = [new TestClock(), new TestLog()]
  const file = await programs.file('plugins.yaml', config)
  const docker = await programs.file('config.json', dockerConfig)
  const keychain = await openKeychain(
    { log, clock, env: programs.env },
    { dockerConfig: docker, plugins: [{ config: file, binDir: programs.directory }], programTimeoutMs: 1_000 },
  )
  return {
    programs,
    clock,
    log,
    config: file,
    get: (image, refused) => {
      const slash = image.indexOf('/')
      return keychain.get({ host: image.slice(0, slash), repository: image.slice(slash + 1) }, { refused })
    },
    [Symbol.asyncDispose]: async () => {
      await keychain.close()
      await programs[Symbol.asyncDispose]()
    },
  }
}

function says(answer: object): string {
  return `printf '%s' '${JSON.stringify({ kind: 'CredentialProviderResponse', apiVersion: API, ...answer })}'`
}

const FOR_REGISTRY = { cacheKeyType: 'Registry', auth: { 'registry.test': { username: 'u', password: 'p' } } }

test('a plugin is told the image as kubelet tells it, with its arguments and its environment', async () => {
  const auth = { 'registry.test': { username: '$1,$2', password: '$AWS_PROFILE' } }
  const answer = JSON.stringify({ kind: 'CredentialProviderResponse', apiVersion: API, cacheKeyType: 'Image', auth })
  await using opened = await open(CONFIG, { ecr: `printf '%s' "${answer.replaceAll('"', '\\"')}"` })
  assert.deepEqual(await opened.get('Registry.test/team/app'), {
    kind: 'password',
    username: 'get-credentials,--verbose',
    password: 'node',
  })
  assert.deepEqual(JSON.parse(await opened.programs.input('ecr')), {
    kind: 'CredentialProviderRequest',
    apiVersion: API,
    image: 'registry.test/team/app',
  })
})

test('a plugin is asked for the images that it is for, and docker’s login comes first', async () => {
  const docker = { auths: { 'registry.test': { auth: base64('docker:d') } } }
  await using opened = await open(CONFIG, { ecr: says(FOR_REGISTRY) }, docker)
  for (const image of ['elsewhere.test/app', 'registry.test:5000/app', 'a.registry.test/other', 'registry.test/app']) {
    await opened.get(image)
  }
  assert.equal(await opened.programs.calls('ecr'), 0)
  await opened.get('a.registry.test/team/app')
  assert.equal(await opened.programs.calls('ecr'), 1)
})

test('Docker Hub goes by the name that kubelet knows it by', async () => {
  const config = CONFIG.replace('"registry.test"', '"docker.io"')
  for (const key of ['docker.io', 'index.docker.io', 'https://index.docker.io/v1/']) {
    const answer = { cacheKeyType: 'Image', auth: { [key]: { username: 'u', password: 'p' } } }
    await using opened = await open(config, { ecr: says(answer) })
    assert.deepEqual(await opened.get('registry-1.docker.io/library/nginx'), LOGIN, key)
    assert.match(await opened.programs.input('ecr'), /"docker\.io\/library\/nginx"/)
  }
})

test('of several logins the one for the longest path counts, and a name before a wildcard', async () => {
  const login = (username: string): object => ({ username, password: 'p' })
  const auth = {
    '*.registry.test': login('wildcard'),
    'a.registry.test': login('host'),
    'https://a.registry.test/v2/team/deep': login('deep'),
    'a.registry.test/team': login('team'),
    'b.registry.test/': login('slash'),
    'not a pattern': login('nonsense'),
  }
  await using opened = await open(CONFIG.replace('/team"', '"'), { ecr: says({ cacheKeyType: 'Global', auth }) })
  const nameFor = async (image: string): Promise<string | undefined> => {
    const credential = await opened.get(image)
    return credential?.kind === 'password' ? credential.username : undefined
  }
  assert.equal(await nameFor('a.registry.test/team/deep/app'), 'deep')
  assert.equal(await nameFor('a.registry.test/team/app'), 'team')
  assert.equal(await nameFor('a.registry.test/other/app'), 'host')
  assert.equal(await nameFor('b.registry.test/app'), 'slash')
  assert.equal(await nameFor('c.registry.test/app'), 'wildcard')
  assert.equal(await nameFor('registry.test/app'), undefined)
  assert.equal(await opened.programs.calls('ecr'), 1)
})

for (const [cacheKeyType, calls] of [
  ['Image', [1, 1, 2, 3]],
  ['Registry', [1, 1, 1, 2]],
  ['Global', [1, 1, 1, 1]],
] as const) {
  test(`an answer by ${cacheKeyType} is kept for what it says it is for`, async () => {
    const auth = { '*.test': { username: 'u', password: 'p' }, '*.*.test': { username: 'u', password: 'p' } }
    await using opened = await open(CONFIG, { ecr: says({ cacheKeyType, cacheDuration: '1h', auth }) })
    const images = ['registry.test/a', 'registry.test/a', 'registry.test/b', 'x.registry.test/team/a']
    for (const [nth, image] of images.entries()) {
      assert.deepEqual(await opened.get(image), LOGIN, image)
      assert.equal(await opened.programs.calls('ecr'), calls[nth], image)
    }
  })
}

for (const [cacheDuration, keptMs] of [
  ['1h30m', 5_400_000],
  ['90s', 90_000],
  [undefined, 43_200_000],
  [null, 43_200_000],
  ['0', 10_000],
  ['1ms', 10_000],
] as const) {
  test(`an answer that is to be kept for ${cacheDuration ?? 'the default'} (${String(cacheDuration)}) is`, async () => {
    await using opened = await open(CONFIG, { ecr: says({ ...FOR_REGISTRY, cacheDuration }) })
    const { clock, get, programs } = opened
    await get('registry.test/a')
    clock.time += keptMs - 1
    await get('registry.test/a')
    assert.equal(await programs.calls('ecr'), 1)
    clock.time += 1
    await get('registry.test/a')
    assert.equal(await programs.calls('ecr'), 2)
  })
}

for (const [what, script, cause] of [
  ['fails', 'echo "no role" >&2; exit 1', 'exit code 1: no role'],
  ['hangs', 'sleep 600', 'did not end within 1000 ms'],
  ['prints nonsense', 'echo hunter2', 'did not print a CredentialProviderResponse'],
  ['prints a request', says({ kind: 'CredentialProviderRequest' }), 'did not print a CredentialProviderResponse'],
  ['prints an unknown cache key', says({ cacheKeyType: 'constructor' }), 'printed an unknown cacheKeyType'],
  ['prints no duration', says({ ...FOR_REGISTRY, cacheDuration: 'soon' }), 'printed a cacheDuration that is none'],
  [
    'prints a number for a duration',
    says({ ...FOR_REGISTRY, cacheDuration: 5 }),
    'printed a cacheDuration that is none',
  ],
  ['prints a list of logins', says({ ...FOR_REGISTRY, auth: [] }), 'printed an auth that is not an object'],
] as const) {
  test(`a plugin that ${what} is a logged failure, remembered for half a minute, and the next is asked`, async () => {
    const second = CONFIG.slice(CONFIG.indexOf('  - name'))
      .replace('name: ecr', 'name: other')
      .replace('"registry.test", ', '')
    await using opened = await open(CONFIG + second, {
      ecr: script,
      other: says({ ...FOR_REGISTRY, auth: { '*.registry.test': { username: 'u', password: 'p' } } }),
    })
    const { clock, get, log, programs } = opened
    assert.equal(await get('registry.test/a'), undefined)
    assert.equal(await get('registry.test/b'), undefined)
    assert.deepEqual(await get('x.registry.test/team/a'), LOGIN)
    assert.equal(await programs.calls('ecr'), 2)
    assert.equal(log.lines.length, 1)
    assert.equal(
      log.lines[0],
      `credential helper failed ${JSON.stringify({ helper: 'ecr', registry: 'registry.test', cause })}`,
    )
    await programs.write('ecr', says(FOR_REGISTRY))
    clock.time += 30_000
    assert.deepEqual(await get('registry.test/a'), LOGIN)
  })
}

test('an answer without a login for the image is an answer', async () => {
  const auth = { 'registry.test/a': { username: 'u' }, 'registry.test/b': 'text' }
  for (const answer of [
    { cacheKeyType: 'Registry', auth },
    { cacheKeyType: 'Registry', auth: null },
    { cacheKeyType: 'Registry' },
  ]) {
    await using opened = await open(CONFIG, { ecr: says(answer) })
    for (const image of ['registry.test/a', 'registry.test/b', 'registry.test/c']) {
      assert.equal(await opened.get(image), undefined)
    }
    assert.equal(await opened.programs.calls('ecr'), 1)
    assert.deepEqual(opened.log.lines, [])
  }
})

test('many images of one registry cause one call where one answer does for all', async () => {
  await using opened = await open(CONFIG, { ecr: says(FOR_REGISTRY) })
  const images = Array.from({ length: 10 }, (_, nth) => `registry.test/r${nth}`)
  assert.deepEqual(
    await Promise.all(images.map(image => opened.get(image))),
    images.map(() => LOGIN),
  )
  assert.equal(await opened.programs.calls('ecr'), 1)
})

test('and one call each where it does not', async () => {
  await using opened = await open(CONFIG, { ecr: says({ ...FOR_REGISTRY, cacheKeyType: 'Image' }) })
  const images = ['registry.test/a', 'registry.test/b', 'registry.test/a']
  assert.deepEqual(
    await Promise.all(images.map(image => opened.get(image))),
    images.map(() => LOGIN),
  )
  assert.equal(await opened.programs.calls('ecr'), 2)
})

test('a refused login is asked for anew, whatever its duration', async () => {
  await using opened = await open(CONFIG, { ecr: says({ ...FOR_REGISTRY, cacheDuration: '12h' }) })
  const { clock, get, programs } = opened
  assert.deepEqual(await get('registry.test/a'), LOGIN)
  clock.time += 1_000
  await programs.write(
    'ecr',
    says({ ...FOR_REGISTRY, cacheKeyType: 'Global', auth: { 'registry.test': { username: 'u', password: 'new' } } }),
  )
  const renewed = { ...LOGIN, password: 'new' }
  assert.deepEqual(await get('registry.test/a', LOGIN), renewed)
  assert.deepEqual(await get('registry.test/a'), renewed)
  assert.equal(await programs.calls('ecr'), 2)
})

test('a configuration that changed is read again, and one that cannot be used is not taken over', async () => {
  await using opened = await open(CONFIG, {
    ecr: says(FOR_REGISTRY),
    other: says({ ...FOR_REGISTRY, auth: { 'registry.test': { username: 'other', password: 'p' } } }),
  })
  const { clock, config, get, log, programs } = opened
  assert.deepEqual(await get('registry.test/a'), LOGIN)
  await fs.writeFile(config, CONFIG.replace('name: ecr', 'name: [hunter2'))
  clock.time += 1_000
  assert.deepEqual(await get('registry.test/a'), LOGIN)
  assert.match(log.lines.join('\n'), /the last one stays.*not valid YAML \(line \d+\)/)
  assert.doesNotMatch(log.lines.join('\n'), /hunter2/)
  await fs.writeFile(config, CONFIG.replace('name: ecr', 'name: other'))
  clock.time += 1_000
  assert.deepEqual(await get('registry.test/a'), { ...LOGIN, username: 'other' })
  assert.equal(await programs.calls('ecr'), 1)
})

test('a refusal reads an unchanged configuration without forgetting what is kept', async () => {
  await using opened = await open(CONFIG, { ecr: 'exit 1' })
  await opened.get('registry.test/a')
  assert.equal(await opened.get('registry.test/a', LOGIN), undefined)
  assert.equal(await opened.programs.calls('ecr'), 1)
})

test('a plugin that requires a service account is not used, and said so', async () => {
  const config = `${CONFIG}    tokenAttributes: {requireServiceAccount: true, serviceAccountTokenAudience: x}\n`
  await using opened = await open(config, { ecr: says(FOR_REGISTRY) })
  assert.equal(await opened.get('registry.test/a'), undefined)
  assert.equal(opened.log.lines.length, 1)
  assert.match(opened.log.lines[0]!, /requires a service account/)
})

test('a configuration may be JSON, and of any version', () => {
  const provider = {
    name: 'p',
    matchImages: ['a.test'],
    defaultCacheDuration: '0s',
    apiVersion: `${API}alpha1`,
    later: true,
  }
  const config = {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'CredentialProviderConfig',
    providers: [provider],
  }
  const [plugin] = parsePluginConfig(JSON.stringify(config))
  assert.equal(plugin?.apiVersion, `${API}alpha1`)
  assert.deepEqual([plugin.args, plugin.env, plugin.defaultCacheMs, plugin.needsServiceAccount], [[], {}, 0, false])
})

test('a configuration that kubelet would refuse is refused by field, and never quoted', async () => {
  const wrong: [change: (config: string) => string, field: string][] = [
    [() => 'text: [hunter2', 'not valid YAML (line 1)'],
    [() => '- hunter2', 'not an object'],
    [config => config.replace('kubelet.config.k8s.io/v1', 'hunter2/v1'), 'apiVersion'],
    [config => config.replace('kind: Cred', 'kind: hunter2Cred'), 'kind'],
    [config => config.replace(/providers:[^]*/, 'providers: []'), 'providers is empty'],
    [config => config.replace(/providers:[^]*/, 'providers: hunter2'), 'providers is not a list'],
    [config => config.replace(/providers:[^]*/, 'providers: [hunter2]'), 'providers[0] is not an object'],
    [config => config.replace('name: ecr', 'name: ../hunter2'), 'providers[0].name'],
    [config => config.replace('name: ecr', 'name: ..'), 'providers[0].name'],
    [config => config.replace('name: ecr', 'nome: hunter2'), 'providers[0].name is missing'],
    [config => config.replace(/matchImages: .*/, 'matchImages: []'), 'providers[0].matchImages is empty'],
    [config => config.replace('"registry.test"', '"hunter2 x"'), 'providers[0].matchImages[1]'],
    [config => config.replace('12h', 'hunter2'), 'providers[0].defaultCacheDuration'],
    [config => config.replace('12h', '-1h'), 'providers[0].defaultCacheDuration'],
    [config => config.replace(/defaultCacheDuration: .*/, ''), 'providers[0].defaultCacheDuration is missing'],
    [config => config.replace(API, 'hunter2'), 'providers[0].apiVersion'],
    [config => config.replace('--verbose', '7'), 'providers[0].args[1]'],
    [config => config.replace('value: node', 'value: 7'), 'providers[0].env[0].value is not a text'],
    [config => config.replace(/env:[^]*/, 'env: [hunter2]'), 'providers[0].env[0] is not an object'],
    [config => config + config.slice(config.indexOf('  - name')), 'twice'],
  ]
  await using programs = await makePrograms()
  const dockerConfig = await programs.file('config.json', {})
  for (const [change, field] of wrong) {
    const config = await programs.file('plugins.yaml', change(CONFIG))
    const plugins = [{ config, binDir: programs.directory }]
    const opening = openKeychain({ log: new TestLog(), clock: new TestClock() }, { dockerConfig, plugins })
    await assert.rejects(opening, (error: unknown) => {
      assert.equal(errorCode(error), 'ERR_CONFIG_INVALID')
      assert.ok(String(error).includes(field), `${String(error)} instead of ${field}`)
      assert.ok(String(error).includes(config))
      assert.ok(!spelled(error).includes('hunter2'), field)
      return true
    })
  }
})
