import assert from 'node:assert/strict'
import os from 'node:os'
import path from 'node:path'
import { describe, test } from 'node:test'
import type { LoadedConfig } from '../../src/config/index.ts'
import { complaints, load, loadToml, NO_TLS } from './loading.ts'
import { TempFolder } from './temp-folder.ts'

describe('without any file', () => {
  test('every key has its default', async () => {
    const { config, file, warnings } = await load()
    assert.equal(file, undefined)
    assert.deepEqual(warnings, [])
    assert.deepEqual(config, {
      mirror: {
        listen: [
          { kind: 'tcp', host: '127.0.0.1', port: 65_001 },
          { kind: 'tcp', host: '127.0.0.1', port: 4001 },
        ],
        defaultRegistry: 'docker.io',
        drainTimeoutMs: 15_000,
        hosts: {},
        blobs: [],
      },
      health: {
        listen: [
          { kind: 'tcp', host: '127.0.0.1', port: 40_901 },
          { kind: 'tcp', host: '127.0.0.1', port: 4003 },
        ],
      },
      admin: { listen: [] },
      state: { path: '/var/lib/shoal' },
      store: { maxBytes: 0, minFreeBytes: 2 ** 31, memoryBytes: 2 ** 26 },
      manifests: { tagTtlMs: 60_000, serveStale: true },
      proxy: { enabled: true, intercept: [], rules: [] },
      upstream: {
        allowAny: false,
        allowPrivate: [],
        certsD: '',
        connectTimeoutMs: 5000,
        idleTimeoutMs: 10_000,
        retries: 3,
        maxConnections: 64,
        dockerConfig: '',
        credentialPlugins: [],
      },
      registries: {},
      origins: {},
      log: { level: 'info', access: false },
    })
  })

  test('the state of somebody who is not root goes where the XDG specification says', async () => {
    const pathFor = async (env: NodeJS.ProcessEnv): Promise<string> =>
      (await load({ env, isRoot: false })).config.state.path
    assert.equal(await pathFor({ XDG_STATE_HOME: '/x/state', HOME: '/home/a' }), '/x/state/shoal')
    assert.equal(await pathFor({ HOME: '/home/a' }), '/home/a/.local/state/shoal')
    assert.equal(await pathFor({ XDG_STATE_HOME: 'relative', HOME: '/home/a' }), '/home/a/.local/state/shoal')
    assert.equal(await pathFor({}), path.join(os.homedir(), '.local/state/shoal'))
  })

  test('the configuration cannot be changed afterwards, at any depth', async () => {
    const { config } = await load({ set: ['registries."r.example".host=http://a:1'] })
    assert.throws(() => Object.assign(config.store, { maxBytes: 1 }), TypeError)
    assert.throws(() => Object.assign(config.mirror.listen[0]!, { port: 1 }), TypeError)
    assert.throws(() => Object.assign(config.registries['r.example']!.tls, { skipVerify: true }), TypeError)
  })
})

describe('the file', () => {
  test('is the one asked for, else that of the environment, else the system’s, if there is one', async () => {
    await using folder = await TempFolder.open()
    const [asked, named, system] = [
      await folder.write('asked.toml', 'store.max_bytes = "1B"'),
      await folder.write('named.toml', 'store.max_bytes = "2B"'),
      await folder.write('system.toml', 'store.max_bytes = "3B"'),
    ]
    const env = { SHOAL_CONFIG: named }
    const bytes = ({ config, file }: LoadedConfig): unknown => [config.store.maxBytes, file]
    assert.deepEqual(bytes(await load({ file: asked, env, defaultFile: system })), [1, asked])
    assert.deepEqual(bytes(await load({ env, defaultFile: system })), [2, named])
    assert.deepEqual(bytes(await load({ env: { SHOAL_CONFIG: '' }, defaultFile: system })), [3, system])
    assert.deepEqual(bytes(await load()), [0, undefined])
  })

  test('that was asked for has to be there', async () => {
    const gone = { code: 'ERR_CONFIG_INVALID', message: '/nonexistent/a.toml: there is no such file' }
    await assert.rejects(load({ file: '/nonexistent/a.toml' }), gone)
    await assert.rejects(load({ env: { SHOAL_CONFIG: '/nonexistent/a.toml' } }), gone)
  })

  test('that cannot be read is a problem even in the system’s place', async () => {
    await using folder = await TempFolder.open()
    await assert.rejects(load({ defaultFile: folder.path }), {
      code: 'ERR_CONFIG_INVALID',
      message: `${folder.path}: cannot be read: EISDIR`,
    })
  })

  test('may name everything there is', async () => {
    const config = await loadToml(`
      [mirror]
      listen = ["[::1]:0", "unix:/run/shoal/mirror.sock"]
      default_registry = "Index.Docker.IO"
      drain_timeout = "1m30s"
      [store]
      max_bytes = "1.5GiB"
      [upstream]
      retries = 0
      [log]
      level = "debug"
      access = true
    `)
    assert.deepEqual(config.mirror, {
      listen: [
        { kind: 'tcp', host: '::1', port: 0 },
        { kind: 'unix', path: '/run/shoal/mirror.sock' },
      ],
      defaultRegistry: 'docker.io',
      drainTimeoutMs: 90_000,
      hosts: {},
      blobs: [],
    })
    assert.equal(config.store.maxBytes, 1_610_612_736)
    assert.equal(config.upstream.retries, 0)
    assert.deepEqual(config.log, { level: 'debug', access: true })
  })

  test('may be written on Windows', async () => {
    assert.equal((await loadToml('\ufeff[store]\r\nmax_bytes = "1B"\r\n')).store.maxBytes, 1)
  })
})

describe('the layers', () => {
  test('the environment overrides the file, and --set overrides both, the last one most', async () => {
    const toml = '[store]\nmax_bytes = "1B"\nmin_free_bytes = "1B"\nmemory_bytes = "1B"\n'
    const { store } = await loadToml(toml, {
      env: { SHOAL_STORE__MIN_FREE_BYTES: '2B', SHOAL_STORE__MEMORY_BYTES: '2B' },
      set: ['store.memory_bytes=3B', 'store.memory_bytes=4B'],
    })
    assert.deepEqual(store, { maxBytes: 1, minFreeBytes: 2, memoryBytes: 4 })
  })

  test('values outside a file need quotes only where text would not be clear', async () => {
    const { config } = await load({
      env: {
        SHOAL_LOG__LEVEL: 'warn',
        SHOAL_LOG__ACCESS: 'true',
        SHOAL_UPSTREAM__RETRIES: '7',
        SHOAL_MIRROR__LISTEN: '["127.0.0.1:0", "[::1]:0"]',
        SHOAL_STATE__PATH: '"/quoted path"',
        SHOAL_ORIGINS__LOCAL: '{ type = "oci-layout", path = "/images" }',
      },
      set: ['health.listen=127.0.0.1:0', 'admin.listen=[]', 'mirror.default_registry=local'],
    })
    assert.deepEqual(config.log, { level: 'warn', access: true })
    assert.equal(config.upstream.retries, 7)
    assert.equal(config.mirror.listen.length, 2)
    assert.equal(config.state.path, '/quoted path')
    assert.deepEqual(config.health.listen, [{ kind: 'tcp', host: '127.0.0.1', port: 0 }])
    assert.deepEqual(config.admin.listen, [])
    assert.deepEqual(config.origins, { local: { type: 'oci-layout', path: '/images' } })
    assert.equal(config.mirror.defaultRegistry, 'local')
  })

  test('a registry with dots in its name is quoted, and tables of several layers are one', async () => {
    const { registries } = await loadToml('[registries."r.example"]\ntls.skip_verify = true\n', {
      set: ['registries."r.example".host=http://10.0.0.5:5000/', "registries.'other.example:5000'.tls.server_name=x"],
    })
    assert.deepEqual(registries, {
      'r.example': {
        host: 'http://10.0.0.5:5000',
        tls: { ...NO_TLS, skipVerify: true },
        visibility: 'auto',
        mirrors: [],
      },
      'other.example:5000': {
        host: 'https://other.example:5000',
        tls: { ...NO_TLS, serverName: 'x' },
        visibility: 'auto',
        mirrors: [],
      },
    })
  })

  test('what Kubernetes sets for a Service called shoal is not meant for us', async () => {
    const env = {
      SHOAL_SERVICE_HOST: '10.0.0.1',
      SHOAL_SERVICE_PORT: '65001',
      SHOAL_SERVICE_PORT_MIRROR: '65001',
      SHOAL_PORT: 'tcp://10.0.0.1:65001',
      SHOAL_PORT_65001_TCP: 'tcp://10.0.0.1:65001',
      SHOAL_PORT_65001_TCP_PROTO: 'tcp',
      SHOAL_PEERS_SERVICE_HOST: '10.0.0.2',
      PATH: '/bin',
    }
    assert.equal((await load({ env })).config.mirror.listen.length, 2)
  })

  test('relative paths are relative to the file, elsewhere to the working directory', async () => {
    await using folder = await TempFolder.open()
    const file = await folder.write(
      'shoal.toml',
      'state.path = "state"\n[origins.a]\ntype = "oci-layout"\npath = "../images"\n',
    )
    const set = ['origins.b={ type = "oci-layout", path = "images" }']
    const env = { SHOAL_UPSTREAM__DOCKER_CONFIG: 'docker.json' }
    const { config } = await load({ file, set, env, cwd: '/somewhere' })
    assert.equal(config.state.path, path.join(folder.path, 'state'))
    assert.deepEqual(config.origins, {
      a: { type: 'oci-layout', path: path.join(path.dirname(folder.path), 'images') },
      b: { type: 'oci-layout', path: '/somewhere/images' },
    })
    assert.equal(config.upstream.dockerConfig, '/somewhere/docker.json')
  })
})

describe('registries', () => {
  test('are reached under their own name over https unless configured, Docker Hub under its real one', async () => {
    const { registries } = await loadToml(
      '[registries."r.example:5000"]\n[registries."Index.docker.io"]\n[registries."*"]\nhost = "http://internal/prefix/"\n',
    )
    assert.deepEqual(
      Object.entries(registries).map(([name, { host }]) => [name, host]),
      [
        ['r.example:5000', 'https://r.example:5000'],
        ['docker.io', 'https://registry-1.docker.io'],
        ['*', 'http://internal/prefix'],
      ],
    )
  })

  test('take their password from a file, without its final line break', async () => {
    await using folder = await TempFolder.open()
    await folder.write('password', ' hunter2 \r\n')
    const file = await folder.write('shoal.toml', '[registries.r]\nusername = "node"\npassword_file = "password"\n')
    const { config, warnings } = await load({ file })
    assert.equal(config.registries['r']?.username, 'node')
    assert.equal(config.registries['r'].password, ' hunter2 ')
    assert.deepEqual(warnings, [])
  })

  test('take their password from the environment when told to', async () => {
    const env = { REGISTRY_PASSWORD: 'hunter2' }
    const set = ['registries.r.username=node', 'registries.r.password_file=env:REGISTRY_PASSWORD']
    assert.equal((await load({ env, set })).config.registries['r']?.password, 'hunter2')
  })

  test('warn of a password file that everybody can read', async () => {
    await using folder = await TempFolder.open()
    const secret = await folder.write('password', 'hunter2', 0o644)
    const { warnings } = await load({
      set: ['registries."r.e".username=node', `registries."r.e".password_file=${secret}`],
    })
    assert.deepEqual(warnings, [`registries."r.e".password_file: ${secret} is readable by every user of this machine`])
  })

  test('name their TLS files by absolute paths', async () => {
    await using folder = await TempFolder.open()
    for (const name of ['ca.pem', 'cert.pem', 'key.pem']) await folder.write(name, '')
    const toml = '[registries.r]\ntls = { ca = "ca.pem", cert = "cert.pem", key = "key.pem" }\n'
    const { config } = await load({ file: await folder.write('shoal.toml', toml) })
    const inFolder = (name: string): string => path.join(folder.path, name)
    assert.deepEqual(config.registries['r']?.tls, {
      ca: [inFolder('ca.pem')],
      clients: [{ cert: inFolder('cert.pem'), key: inFolder('key.pem') }],
      skipVerify: false,
    })
  })
})

describe('a problem', () => {
  const CASES: Record<string, [toml: string, complaint: string]> = {
    'an unknown key': [
      '[store]\nmax_byte = "1B"',
      'FILE:2: store.max_byte: unknown key; the nearest is store.max_bytes',
    ],
    'an unknown table': ['\n[stor]\nmax_bytes = "1B"', 'FILE:2: stor: unknown key; the nearest is store'],
    'a key of a later part': ['[fuse]\nworkers = 2', 'FILE:1: fuse: unknown key; the nearest is state'],
    'a key that every object has': ['[__proto__]\na = 1', 'FILE:1: __proto__: unknown key; the nearest is proxy'],
    'a key with odd characters': ['"a/b~c" = 1', 'FILE:1: "a/b~c": unknown key; the nearest is admin'],
    'an empty key': ['"" = 1', 'FILE:1: "": unknown key; the nearest is log'],
    'an unknown key of a registry': [
      '[registries."r.example"]\npassword = "hunter2"',
      'FILE:2: registries."r.example".password: unknown key; the nearest is registries."r.example".password_file',
    ],
    'a name with dots and no quotes': [
      '[registries.r.example]\nhost = "http://a"',
      'FILE:1: registries.r.example: unknown key; the nearest is registries.r.username; names with dots are quoted',
    ],
    'a number for a string': [
      'log.level = 3',
      'FILE:1: log.level: 3 is not one of "debug", "info", "warn", "error", "silent"',
    ],
    'an unknown choice': [
      'log.level = "loud"',
      'FILE:1: log.level: "loud" is not one of "debug", "info", "warn", "error", "silent"',
    ],
    'a string for a boolean': ['log.access = "yes"', 'FILE:1: log.access: "yes" is not true or false'],
    'a fraction': ['upstream.retries = 1.5', 'FILE:1: upstream.retries: 1.5 is not a whole number from 0 to 20'],
    'a number out of range': [
      'upstream.max_connections = 0',
      'FILE:1: upstream.max_connections: 0 is not a whole number from 1 to 4096',
    ],
    'a date': ['state.path = 2024-01-01T00:00:00Z', 'FILE:1: state.path: 2024-01-01T00:00:00.000Z is not a path'],
    'a string for a list': ['mirror.listen = "127.0.0.1:1"', 'FILE:1: mirror.listen: "127.0.0.1:1" is not a list'],
    'a string for a table': ['store = "x"', 'FILE:1: store: a string is not a table'],
    'a list for a table': ['registries = []', 'FILE:1: registries: a list is not a table'],
    'a table for a string': ['state.path = {}', 'FILE:1: state.path: a table is not a path'],
    'a string for a registry': ['registries.r = "x"', 'FILE:1: registries.r: a string is not a table'],
    'a size without a unit': [
      'store.max_bytes = "10"',
      'FILE:1: store.max_bytes: "10" is not a size such as "4MiB", "50GiB" or "0"',
    ],
    'a size as a number': [
      'store.max_bytes = 10',
      'FILE:1: store.max_bytes: 10 is not a size such as "4MiB", "50GiB" or "0"',
    ],
    'a size beyond numbers': [
      'store.max_bytes = "99999PiB"',
      'FILE:1: store.max_bytes: "99999PiB" is not a size such as "4MiB", "50GiB" or "0"',
    ],
    'a bad duration': [
      'manifests.tag_ttl = "1 minute"',
      'FILE:1: manifests.tag_ttl: "1 minute" is not a duration such as "5s", "300ms" or "1m30s"',
    ],
    'a duration beyond timers': [
      'mirror.drain_timeout = "25d"',
      'FILE:1: mirror.drain_timeout: "25d" is longer than 24d',
    ],
    'a duration that rounds to nothing': [
      'mirror.drain_timeout = "0.1ms"',
      'FILE:1: mirror.drain_timeout: "0.1ms" is not a duration such as "5s", "300ms" or "1m30s"',
    ],
    'no time to connect in': [
      'upstream.connect_timeout = "0"',
      'FILE:1: upstream.connect_timeout: must be longer than 0',
    ],
    'nowhere to listen': ['mirror.listen = []', 'FILE:1: mirror.listen: must not be empty'],
    'a bad address': [
      'mirror.listen = ["127.0.0.1:1", "localhost"]',
      'FILE:1: mirror.listen[1]: "localhost" is not an address such as "127.0.0.1:65001", "[::1]:65001" or "unix:/run/shoal/mirror.sock"',
    ],
    'one address twice in a list': [
      'mirror.listen = ["[::1]:1", "[::1]:1"]',
      'FILE:1: mirror.listen: "[::1]:1" is already in mirror.listen',
    ],
    'one address for two listeners': [
      'admin.listen = ["127.0.0.1:40901"]',
      'FILE:1: admin.listen: "127.0.0.1:40901" is already in health.listen',
    ],
    'a registry name that is a URL': [
      'mirror.default_registry = "https://docker.io"',
      'FILE:1: mirror.default_registry: "https://docker.io" is not the name of a registry',
    ],
    'an entry name that is a URL': [
      '[registries."https://r"]',
      'FILE:1: registries."https://r": "https://r" is not a name such as "registry.example" or "localhost:5000"',
    ],
    'one registry under two names': [
      '[registries."docker.io"]\n[registries."index.docker.io"]',
      'FILE:2: registries."index.docker.io": is the same name as registries."docker.io"',
    ],
    'an origin named as a registry': [
      '[registries.a]\n[origins.a]\ntype = "oci-layout"\npath = "/x"',
      'FILE:2: origins.a: is the same name as registries.a',
    ],
    'an origin for any name': [
      '[origins."*"]\ntype = "oci-layout"\npath = "/x"',
      'FILE:1: origins."*": "*" is not a name such as "registry.example" or "localhost:5000"',
    ],
    'an unknown kind of origin': [
      '[origins.a]\ntype = "ftp"\npath = "/x"',
      'FILE:2: origins.a.type: "ftp" is not one of "oci-layout", "localfs", "localdisk", "http", "s3", "oss"',
    ],
    'an origin without a path': ['[origins.a]\ntype = "oci-layout"', 'FILE:1: origins.a.path: is missing'],
    'an origin with an empty path': [
      '[origins.a]\ntype = "oci-layout"\npath = ""',
      'FILE:3: origins.a.path: must not be empty',
    ],
    'a path with NUL': ['state.path = "a\\u0000b"', 'FILE:1: state.path: must not contain NUL'],
    'a host without a scheme': [
      'registries.r.host = "r:5000"',
      'FILE:1: registries.r.host: is not a URL such as "https://registry.example" or "http://10.0.0.5:5000"',
    ],
    'a host that is no URL': [
      'registries.r.host = "https://a b"',
      'FILE:1: registries.r.host: is not a URL such as "https://registry.example" or "http://10.0.0.5:5000"',
    ],
    'a host with credentials': [
      'registries.r.host = "https://u:hunter2@r"',
      'FILE:1: registries.r.host: must not hold credentials; use username and password_file',
    ],
    'a host with a query': [
      'registries.r.host = "https://r/?token=hunter2"',
      'FILE:1: registries.r.host: must not have a query or a fragment',
    ],
    'any other registry taken from nowhere': [
      '[registries."*"]',
      'FILE:1: registries."*".host: is missing: "*" says where every other registry is taken from',
    ],
    'a user without a password': [
      'registries.r.username = "u"',
      'FILE:1: registries.r.username: needs password_file beside it',
    ],
    'a certificate without a key': [
      'registries.r.tls.cert = "/dev/null"',
      'FILE:1: registries.r.tls.cert: needs tls.key beside it',
    ],
    'a key without a certificate': [
      'registries.r.tls.key = "/dev/null"',
      'FILE:1: registries.r.tls.key: needs tls.cert beside it',
    ],
    'authorities that are not there': [
      'registries.r.tls.ca = "/nonexistent/ca"',
      'FILE:1: registries.r.tls.ca: /nonexistent/ca cannot be read: ENOENT',
    ],
    'a password file that is not there': [
      'registries.r = { username = "u", password_file = "/nonexistent/p" }',
      'FILE:1: registries.r.password_file: /nonexistent/p cannot be read: ENOENT',
    ],
    'an empty password file': [
      'registries.r = { username = "u", password_file = "/dev/null" }',
      'FILE:1: registries.r.password_file: /dev/null is empty',
    ],
    'a password variable that is not set': [
      'registries.r = { username = "u", password_file = "env:NONE" }',
      'FILE:1: registries.r.password_file: the variable NONE is not set',
    ],
    'a password as a number': [
      'registries.r = { username = "u", password_file = 12345 }',
      'FILE:1: registries.r.password_file: is not a path',
    ],
    'a key given twice': [
      '[store]\nmax_bytes = "1B"\nmax_bytes = "2B"',
      'FILE:3:1: trying to redefine an already defined table or value',
    ],
  }

  for (const [what, [toml, complaint]] of Object.entries(CASES)) {
    test(`is named, with its place: ${what}`, async () => assert.deepEqual(await complaints(toml), [complaint]))
  }

  test('a password without a user, and a user that Basic cannot carry', async () => {
    const set = ['registries.a.password_file=env:P', 'registries.b={ username = "u:v", password_file = "env:P" }']
    assert.deepEqual(await complaints('', { set, env: { P: 'x' } }), [
      '--set: registries.a.password_file: needs username beside it',
      '--set: registries.b.username: must not contain ":" (RFC 7617, section 2)',
    ])
  })

  test('in a variable or in --set is named by them', async () => {
    const env = { SHOAL_STORE__MAX_BYTE: '1B', SHOAL_UPSTREAM__RETRIES: 'many', SHOAL_MIRROR__LISTEN: '[1' }
    assert.deepEqual(
      await complaints('', { env, set: ['store.max_bytes=lots', 'no assignment', 'stor.max_bytes=1B'] }),
      [
        '--set needs key=value, such as store.max_bytes=10GiB',
        '--set: stor: unknown key; the nearest is store',
        'SHOAL_STORE__MAX_BYTE: store.max_byte: unknown key; the nearest is SHOAL_STORE__MAX_BYTES',
        'SHOAL_MIRROR__LISTEN: mirror.listen: "[1" is not a list',
        '--set: store.max_bytes: "lots" is not a size such as "4MiB", "50GiB" or "0"',
        'SHOAL_UPSTREAM__RETRIES: upstream.retries: "many" is not a whole number from 0 to 20',
      ],
    )
  })

  test('does not hide another', async () => {
    const toml = '[stor]\n[store]\nmax_bytes = "x"\n[registries.r]\nusername = "u"\n[log]\nlevel = 1\n'
    assert.deepEqual(await complaints(toml), [
      'FILE:1: stor: unknown key; the nearest is store',
      'FILE:3: store.max_bytes: "x" is not a size such as "4MiB", "50GiB" or "0"',
      'FILE:7: log.level: 1 is not one of "debug", "info", "warn", "error", "silent"',
      'FILE:5: registries.r.username: needs password_file beside it',
    ])
  })

  test('is there as data as well', async () => {
    await assert.rejects(load({ set: ['store.max_bytes=x'] }), {
      message:
        'the configuration is invalid:\n  --set: store.max_bytes: "x" is not a size such as "4MiB", "50GiB" or "0"',
      details: {
        problems: [
          { where: '--set', key: 'store.max_bytes', message: '"x" is not a size such as "4MiB", "50GiB" or "0"' },
        ],
      },
    })
  })

  test('in the TOML itself does not show the line, which may hold a secret', async () => {
    assert.deepEqual(await complaints('\npassword = "hunter2'), ['FILE:2:12: unfinished string'])
  })

  test('never holds a password', async () => {
    await using folder = await TempFolder.open()
    const secret = await folder.write('password', 'hunter2')
    const toml = `stor = 1\n[registries.r]\nusername = "u"\npassword_file = "${secret}"\npassword = "hunter2"\n`
    for (const line of await complaints(toml)) assert.doesNotMatch(line, /hunter2/)
  })
})
