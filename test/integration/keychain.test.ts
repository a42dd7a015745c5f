import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { fetchBlob } from '../support/client.ts'
import { bytesOf, generatedBlob } from '../support/generated-blob.ts'
import { startScriptedOrigin, type ScriptedAuthOptions, type ScriptedOrigin } from '../support/scripted-origin.ts'
import { startShoal, type ShoalProcess } from '../support/shoal.ts'
import { until } from '../support/until.ts'
import { base64, makePrograms, type Programs } from '../upstream/auth/programs.ts'

const PLUGIN_API = 'credentialprovider.kubelet.k8s.io/v1'
const REPOSITORY = 'team/app'
const OPEN = 'open/app'

function mayPull(user: string | undefined, repository: string): boolean {
  return user !== undefined || repository === OPEN
}

let seeds = 100

/** Registries, each with its own way of telling who may pull, and a daemon that has to find out what to say to each. */
class Keyed implements AsyncDisposable {
  readonly programs: Programs
  readonly origins = new Map<string, ScriptedOrigin>()
  #shoal: ShoalProcess | undefined

  private constructor(programs: Programs) {
    this.programs = programs
  }

  static async start(
    auths: Readonly<Record<string, ScriptedAuthOptions>>,
    prepare: (keyed: Keyed) => Promise<void>,
    upstream: (keyed: Keyed) => object = () => ({}),
  ): Promise<Keyed> {
    const keyed = new Keyed(await makePrograms())
    try {
      for (const [name, auth] of Object.entries(auths))
        keyed.origins.set(name, await startScriptedOrigin({ auth: { mayPull, ...auth } }))
      await prepare(keyed)
      const { directory } = keyed.programs
      keyed.#shoal = await startShoal({
        config: {
          registries: Object.fromEntries([...keyed.origins].map(([name, { url }]) => [name, { host: url }])),
          upstream: { retries: 0, ...upstream(keyed) },
        },
        env: { DOCKER_CONFIG: directory, PATH: `${directory}:${process.env['PATH'] ?? ''}` },
      })
      return keyed
    } catch (error: unknown) {
      await keyed[Symbol.asyncDispose]()
      throw error
    }
  }

  get shoal(): ShoalProcess {
    if (this.#shoal === undefined) throw new Error('no daemon yet')
    return this.#shoal
  }

  origin(name: string): ScriptedOrigin {
    const origin = this.origins.get(name)
    if (origin === undefined) throw new Error(`no registry ${name}`)
    return origin
  }

  host(name: string): string {
    return this.origin(name).host
  }

  writeConfig(config: object): Promise<string> {
    return this.programs.file('config.json', config)
  }

  /** A blob that nobody has asked for yet; its status, and how long that took. */
  async read(name: string, repository = REPOSITORY): Promise<{ status: number; milliseconds: number }> {
    seeds += 1
    const content = generatedBlob(20_000, seeds)
    const digest = this.origin(name).add(content)
    const began = performance.now()
    const answer = await fetchBlob({ mirror: this.shoal.mirror, digest, repository, registry: name })
    if (answer.status === 200) assert.ok(answer.body.equals(bytesOf(content)), name)
    return { status: answer.status, milliseconds: performance.now() - began }
  }

  /** The daemon has ended, and nothing that it wrote holds one of these. */
  async assertSecret(...secrets: readonly string[]): Promise<void> {
    await this.shoal.stop()
    const all = secrets.flatMap(secret => [secret, base64(secret)])
    for (const secret of all)
      assert.deepEqual(
        this.shoal.lines.filter(line => line.includes(secret)),
        [],
      )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#shoal?.[Symbol.asyncDispose]()
    for (const origin of this.origins.values()) await origin.close()
    await this.programs[Symbol.asyncDispose]()
  }
}

function says(answer: object): string {
  return `printf '%s' '${JSON.stringify(answer)}'`
}

test('logins come from auths, helpers, identity tokens and the kubelet’s plugins, each for its own registry', async () => {
  const users = { node: 'the-password-of-the-node' }
  await using keyed = await Keyed.start(
    {
      'auths.test': { kind: 'basic', users },
      'helper.test': { kind: 'token', users: { helped: 'the-secret-of-the-helper' } },
      'identity.test': { kind: 'token', refreshTokens: { 'the-refresh-token': 'node' } },
      'plugin.test': { kind: 'token', users: { plugged: 'the-secret-of-the-plugin' } },
      'nobody.test': { kind: 'basic', users },
    },
    async self => {
      const { programs } = self
      await programs.write(
        'docker-credential-mine',
        says({ ServerURL: self.host('helper.test'), Username: 'helped', Secret: 'the-secret-of-the-helper' }),
      )
      await self.writeConfig({
        auths: {
          [self.host('auths.test')]: { auth: base64(`node:${users.node}`) },
          [self.host('identity.test')]: { auth: base64('<token>:'), identitytoken: 'the-refresh-token' },
        },
        credHelpers: { [self.host('helper.test')]: 'mine' },
      })
      const login = { username: 'plugged', password: 'the-secret-of-the-plugin' }
      await programs.write(
        'plugin',
        says({
          kind: 'CredentialProviderResponse',
          apiVersion: PLUGIN_API,
          cacheKeyType: 'Registry',
          cacheDuration: '1h',
          auth: { [self.host('plugin.test')]: login },
        }),
      )
      await programs.file('plugins.yaml', {
        apiVersion: 'kubelet.config.k8s.io/v1',
        kind: 'CredentialProviderConfig',
        providers: [
          {
            name: 'plugin',
            matchImages: [self.host('plugin.test')],
            defaultCacheDuration: '1h',
            apiVersion: PLUGIN_API,
          },
        ],
      })
    },
    ({ programs }) => ({
      credential_plugins: [{ config: path.join(programs.directory, 'plugins.yaml'), bin_dir: programs.directory }],
    }),
  )
  for (const name of ['auths.test', 'helper.test', 'identity.test', 'plugin.test']) {
    for (let round = 0; round < 3; round += 1) assert.equal((await keyed.read(name)).status, 200, name)
  }
  assert.equal((await keyed.read('nobody.test')).status, 401, 'a login of one registry is none for another')
  assert.equal(await keyed.programs.calls('docker-credential-mine'), 1)
  assert.equal(await keyed.programs.input('docker-credential-mine'), keyed.host('helper.test'))
  assert.equal(await keyed.programs.calls('plugin'), 1)
  assert.deepEqual(JSON.parse(await keyed.programs.input('plugin')), {
    kind: 'CredentialProviderRequest',
    apiVersion: PLUGIN_API,
    image: `${keyed.host('plugin.test')}/${REPOSITORY}`,
  })
  assert.ok(keyed.origin('nobody.test').requests.every(({ headers }) => headers.authorization === undefined))
  await keyed.assertSecret(users.node, 'the-secret-of-the-helper', 'the-refresh-token', 'the-secret-of-the-plugin')
})

test('a helper that hangs, fails or talks nonsense costs its own registry what is private there, and nobody else anything', async () => {
  const users = { node: 'the-password-of-the-node' }
  const basic = { kind: 'basic', users } as const
  // What anybody may read there takes no login, so that it is a registry with tokens.
  const token = { kind: 'token', users } as const
  await using keyed = await Keyed.start(
    { 'hangs.test': token, 'nonsense.test': token, 'fails.test': token, 'missing.test': token, 'works.test': basic },
    async self => {
      await self.programs.write('docker-credential-hangs', 'exec sleep 600')
      await self.programs.write('docker-credential-nonsense', `echo '{"Username": "node", "Sec'`)
      await self.programs.write('docker-credential-fails', 'echo "password: the-secret-it-says" >&2; exit 3')
      await self.writeConfig({
        auths: { [self.host('works.test')]: { auth: base64(`node:${users.node}`) } },
        credHelpers: {
          [self.host('hangs.test')]: 'hangs',
          [self.host('nonsense.test')]: 'nonsense',
          [self.host('fails.test')]: 'fails',
          [self.host('missing.test')]: 'not-installed',
        },
      })
    },
  )
  const hanging = keyed.read('hangs.test')
  await until(async () => (await keyed.programs.calls('docker-credential-hangs')) === 1)
  // While it hangs.
  for (const [name, status] of [
    ['works.test', 200],
    ['nonsense.test', 401],
    ['fails.test', 401],
    ['missing.test', 401],
  ] as const) {
    const answer = await keyed.read(name)
    assert.equal(answer.status, status, name)
    assert.ok(answer.milliseconds < 2_000, `${name} took ${answer.milliseconds} ms`)
    const open = await keyed.read(name, OPEN)
    assert.equal(open.status, 200, `${name}, where no login is needed`)
  }
  const { milliseconds, status } = await hanging
  assert.equal(status, 401)
  assert.ok(milliseconds > 2_000 && milliseconds < 15_000, `the helper was given up after ${milliseconds} ms`)
  // It is not waited for again.
  const again = await keyed.read('hangs.test')
  assert.equal(again.status, 401)
  assert.ok(again.milliseconds < 1_000, `${again.milliseconds} ms`)
  assert.equal(await keyed.programs.calls('docker-credential-hangs'), 1)
  assert.equal((await keyed.read('hangs.test', OPEN)).status, 200)
  for (const name of ['hangs', 'nonsense', 'fails', 'not-installed']) {
    const said = keyed.shoal.records.filter(({ helper }) => helper === `docker-credential-${name}`)
    assert.equal(said.length, 1, `one line about ${name}`)
    assert.equal(said[0]?.msg, 'credential helper failed')
  }
  await keyed.assertSecret(users.node, 'the-secret-it-says')
})

test('a password that is changed is used at once, without a restart: in the file, by a helper, and as a token', async () => {
  await using keyed = await Keyed.start(
    {
      'file.test': { kind: 'basic', users: { node: 'old-password' } },
      'helper.test': { kind: 'token', users: { node: 'old-password' }, tokenSeconds: 3600 },
    },
    async self => {
      await self.programs.write('docker-credential-mine', says({ Username: 'node', Secret: 'old-password' }))
      await writeLogins(self, 'old-password')
    },
  )
  for (const name of ['file.test', 'helper.test']) assert.equal((await keyed.read(name)).status, 200, name)
  for (const password of ['new-password', 'newest-password']) {
    // A helper's answer that is younger than a second is not asked for again, whoever refuses it.
    const answeredAt = Date.now()
    await until(() => Date.now() > answeredAt + 1_100)
    for (const name of ['file.test', 'helper.test']) {
      const { auth } = keyed.origin(name)
      auth.options = { ...auth.options, users: { node: password } }
      auth.revokeTokens()
    }
    const { directory } = keyed.programs
    // As docker does it: beside, then in place.
    await writeLogins(keyed, password, 'config.next')
    await fs.rename(path.join(directory, 'config.next'), path.join(directory, 'config.json'))
    await keyed.programs.write('docker-credential-mine', says({ Username: 'node', Secret: password }))
    assert.equal((await keyed.read('file.test')).status, 200, password)
    assert.equal((await keyed.read('helper.test')).status, 200, password)
  }
  await keyed.assertSecret('old-password', 'new-password', 'newest-password')
})

function writeLogins(keyed: Keyed, password: string, file = 'config.json'): Promise<string> {
  return keyed.programs.file(file, {
    auths: { [keyed.host('file.test')]: { auth: base64(`node:${password}`) } },
    credHelpers: { [keyed.host('helper.test')]: 'mine' },
  })
}
