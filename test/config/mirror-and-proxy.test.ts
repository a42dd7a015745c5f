import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { complaints, load, loadToml } from './loading.ts'
import { TempFolder } from './temp-folder.ts'

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`

test('virtual hosts are found in lower case, and stand for registries by their one name', async () => {
  const { hosts } = (
    await loadToml('[mirror.hosts]\n"Mirror.Example:65001" = "R.example"\nhub = "index.docker.io"\n"[::1]:1" = "r"\n')
  ).mirror
  assert.deepEqual(hosts, { 'mirror.example:65001': 'r.example', hub: 'docker.io', '[::1]:1': 'r' })
})

test('a table with free names can be set from outside, as a whole or name by name', async () => {
  const toml = 'mirror.hosts."a.example" = "a"'
  const env = { SHOAL_MIRROR__HOSTS: '{ "b.example" = "b", "c.example" = "c" }' }
  const { config } = await load({ env, set: ['mirror.hosts."c.example"=d'] })
  assert.deepEqual(config.mirror.hosts, { 'b.example': 'b', 'c.example': 'd' })
  assert.deepEqual((await loadToml(toml, { env })).mirror.hosts, {
    'a.example': 'a',
    'b.example': 'b',
    'c.example': 'c',
  })
})

test('blobs have a path of the mirror, or a socket of their own', async () => {
  const { mirror } = await loadToml(`
    [[mirror.blobs]]
    prefix = "/models"
    origin = "Models"
    [[mirror.blobs]]
    prefix = "/models/big"
    origin = "docker.io"
    repository = "library/app"
    [[mirror.blobs]]
    socket = "/run/blob.sock"
    origin = "models"
    digest = "${DIGEST}"
    [origins.models]
    type = "localfs"
    dir = "/models"
  `)
  assert.deepEqual(mirror.blobs, [
    { prefix: '/models', origin: 'models', repository: 'blobs' },
    { prefix: '/models/big', origin: 'docker.io', repository: 'library/app' },
    { socket: '/run/blob.sock', origin: 'models', repository: 'blobs', digest: DIGEST },
  ])
})

test('the proxy has rules in an order, a login and hosts to look into', async () => {
  await using folder = await TempFolder.open()
  await folder.write('password', 'hunter2')
  const file = await folder.write(
    'shoal.toml',
    `
    [proxy]
    enabled = false
    intercept = ["Registry.example", "*.example:8443", "*"]
    username = "u"
    password_file = "password"
    [[proxy.rules]]
    match = "blobs/sha256.*"
    action = "cache"
    use_https = true
    redirect = ""
    [[proxy.rules]]
    match = "^http://old/(.*)"
    action = "redirect"
    redirect = "https://new/$1"
    [[proxy.rules]]
    match = "//a/"
    action = "redirect"
    redirect = "b.example:5000"
    `,
  )
  assert.deepEqual((await load({ file })).config.proxy, {
    enabled: false,
    intercept: ['registry.example', '*.example:8443', '*'],
    username: 'u',
    password: 'hunter2',
    rules: [
      { match: 'blobs/sha256.*', action: 'cache', useHttps: true },
      { match: '^http://old/(.*)', action: 'redirect', useHttps: false, redirect: 'https://new/$1' },
      { match: '//a/', action: 'redirect', useHttps: false, redirect: 'b.example:5000' },
    ],
  })
})

test('a list of tables from outside replaces the one of the file; a list of one may do without its brackets', async () => {
  const toml = '[[proxy.rules]]\nmatch = "file"\naction = "cache"\n[[proxy.rules]]\nmatch = "file"\naction = "cache"\n'
  const rule = (match: string): object => ({ match, action: 'deny', useHttps: false })
  const env = { SHOAL_PROXY__RULES: '[{ match = "env", action = "deny" }]' }
  assert.deepEqual((await loadToml(toml, { env })).proxy.rules, [rule('env')])
  const set = ['proxy.rules={ match = "set", action = "deny" }']
  assert.deepEqual((await loadToml(toml, { env, set })).proxy.rules, [rule('set')])
  assert.deepEqual((await loadToml(toml, { set: ['proxy.rules=[]'] })).proxy.rules, [])
})

test('what leads to origins besides the table is told apart', async () => {
  await using folder = await TempFolder.open()
  const file = await folder.write(
    'shoal.toml',
    `
    [upstream]
    allow_any = true
    allow_private = ["10.0.0.0/8", "fd00::/8", "192.168.1.1"]
    certs_d = "certs.d"
    [[upstream.credential_plugins]]
    config = "plugins.yaml"
    bin_dir = "/usr/libexec/plugins"
    `,
  )
  const { upstream } = (await load({ file, set: ['upstream.allow_private=::1'] })).config
  assert.deepEqual(
    { ...upstream, allowPrivate: (await load({ file })).config.upstream.allowPrivate },
    {
      allowAny: true,
      allowPrivate: ['10.0.0.0/8', 'fd00::/8', '192.168.1.1'],
      certsD: `${folder.path}/certs.d`,
      connectTimeoutMs: 5000,
      idleTimeoutMs: 10_000,
      retries: 3,
      maxConnections: 64,
      dockerConfig: '',
      credentialPlugins: [{ config: `${folder.path}/plugins.yaml`, binDir: '/usr/libexec/plugins' }],
    },
  )
  assert.deepEqual(upstream.allowPrivate, ['::1'])
})

describe('a problem', () => {
  const blob = (...lines: string[]): string => ['[[mirror.blobs]]', ...lines].join('\n')
  const rules = (...lines: string[]): string =>
    ['[[proxy.rules]]', 'match = "a"', 'action = "cache"', '[[proxy.rules]]', ...lines].join('\n')
  const badPrefix = (prefix: string): [string, string] => [
    blob(`prefix = "${prefix}"`, 'origin = "r"', 'repository = "a"'),
    `FILE:2: mirror.blobs[0].prefix: "${prefix}" is not a path such as "/models", without a final slash and not below "/v2"`,
  ]
  const CASES: Record<string, [toml: string, complaint: string]> = {
    'a host that is none': [
      'mirror.hosts."http://m" = "r"',
      'FILE:1: mirror.hosts."http://m": is not a host such as "mirror.example" or "localhost:65001"',
    ],
    'a host twice': [
      '[mirror.hosts]\n"m.example" = "a"\n"M.example" = "b"',
      'FILE:3: mirror.hosts."M.example": is the same as "m.example"',
    ],
    'a host with dots and no quotes': [
      '[mirror.hosts]\nm.example = "r"',
      'FILE:2: mirror.hosts.m: a table is not the name of a registry; names with dots are quoted',
    ],
    'a host that stands for a URL': [
      'mirror.hosts.m = "https://r"',
      'FILE:1: mirror.hosts.m: "https://r" is not the name of a registry',
    ],
    'a host that stands for any registry': [
      'mirror.hosts.m = "*"',
      'FILE:1: mirror.hosts.m: "*" is not the name of a registry',
    ],
    'a prefix that does not begin with a slash': badPrefix('models'),
    'a prefix that ends with a slash': badPrefix('/models/'),
    'a prefix that is everything': badPrefix('/'),
    'a prefix that is the registry API': badPrefix('/v2'),
    'a prefix below the registry API': badPrefix('/v2/models'),
    'a prefix with a query': badPrefix('/models?a'),
    'a prefix with an escape': badPrefix('/%76%32'),
    'a prefix that goes up': badPrefix('/models/../v2'),
    'a prefix with an empty part': badPrefix('/models//a'),
    'blobs nowhere': [blob('origin = "r"', 'repository = "a"'), 'FILE:1: mirror.blobs[0]: needs prefix or socket'],
    'blobs in two places': [
      blob('prefix = "/a"', 'socket = "/s"', 'origin = "r"', 'repository = "a"', `digest = "${DIGEST}"`),
      'FILE:1: mirror.blobs[0]: must not have both prefix and socket',
    ],
    'blobs from nowhere': [blob('prefix = "/a"'), 'FILE:1: mirror.blobs[0].origin: is missing'],
    'blobs from a URL': [
      blob('prefix = "/a"', 'origin = "https://r"'),
      'FILE:3: mirror.blobs[0].origin: "https://r" is not the name of a registry',
    ],
    'blobs of no repository of a registry': [
      blob('prefix = "/a"', 'origin = "docker.io"'),
      'FILE:1: mirror.blobs[0].repository: is missing: "docker.io" is not in origins, and in a registry blobs have a repository',
    ],
    'blobs of a repository that is none': [
      blob('prefix = "/a"', 'origin = "r"', 'repository = "A"'),
      'FILE:4: mirror.blobs[0].repository: "A" is not the name of a repository',
    ],
    'a prefix twice': [
      [
        blob('prefix = "/a"', 'origin = "r"', 'repository = "a"'),
        blob('prefix = "/a"', 'origin = "r"', 'repository = "b"'),
      ].join('\n'),
      'FILE:6: mirror.blobs[1].prefix: is already in mirror.blobs[0]',
    ],
    'a socket that is not absolute': [
      blob('socket = "blob.sock"', 'origin = "r"', 'repository = "a"', `digest = "${DIGEST}"`),
      'FILE:2: mirror.blobs[0].socket: "blob.sock" is not the path of a socket: absolute, at most 107 bytes',
    ],
    'a socket without a blob': [
      blob('socket = "/s"', 'origin = "r"', 'repository = "a"'),
      'FILE:2: mirror.blobs[0].socket: needs digest beside it',
    ],
    'a blob that is no digest': [
      blob('socket = "/s"', 'origin = "r"', 'repository = "a"', 'digest = "sha256:abc"'),
      'FILE:5: mirror.blobs[0].digest: "sha256:abc" is not a digest: sha256:<64 hex> or sha512:<128 hex>',
    ],
    'one blob below a prefix': [
      blob('prefix = "/a"', 'origin = "r"', 'repository = "a"', `digest = "${DIGEST}"`),
      'FILE:5: mirror.blobs[0].digest: is for a socket: below a prefix, requests name the blob',
    ],
    'a socket that another listener has': [
      `admin.listen = ["unix:/s"]\n${blob('socket = "/s"', 'origin = "r"', 'repository = "a"', `digest = "${DIGEST}"`)}`,
      'FILE:3: mirror.blobs[0].socket: "unix:/s" is already in admin.listen',
    ],
    'an unknown key of a blob': [
      blob('prefix = "/a"', 'origin = "r"', 'repositry = "a"', 'repository = "a"'),
      'FILE:4: mirror.blobs[0].repositry: unknown key; the nearest is mirror.blobs[0].repository',
    ],
    'a rule that is no expression': [
      rules('match = "("', 'action = "deny"'),
      'FILE:5: proxy.rules[1].match: "(" is not a regular expression: Unterminated group',
    ],
    'a rule without an expression': [rules('action = "deny"'), 'FILE:4: proxy.rules[1].match: is missing'],
    'a rule with an empty expression': [
      rules('match = ""', 'action = "deny"'),
      'FILE:5: proxy.rules[1].match: must not be empty',
    ],
    'a rule that does nothing': [rules('match = "b"'), 'FILE:4: proxy.rules[1].action: is missing'],
    'a rule that does what nobody knows': [
      rules('match = "b"', 'action = "proxy"'),
      'FILE:6: proxy.rules[1].action: "proxy" is not one of "cache", "direct", "redirect", "deny"',
    ],
    'a redirect to nowhere': [
      rules('match = "b"', 'action = "redirect"'),
      'FILE:4: proxy.rules[1].redirect: is missing: the action "redirect" needs to know where to',
    ],
    'a redirect that is not followed': [
      rules('match = "b"', 'action = "direct"', 'redirect = "b.example"'),
      'FILE:7: proxy.rules[1].redirect: is for the action "redirect", not for "direct"',
    ],
    'a redirect to what is no host': [
      rules('match = "b"', 'action = "redirect"', 'redirect = "$1"'),
      'FILE:7: proxy.rules[1].redirect: is neither a host such as "mirror.example:5000" nor has it a "/"',
    ],
    'a redirect with a login': [
      rules('match = "b"', 'action = "redirect"', 'redirect = "https://u:hunter2@b/"'),
      'FILE:7: proxy.rules[1].redirect: must not hold credentials',
    ],
    'an unknown key of a rule': [
      rules('match = "b"', 'action = "deny"', 'usehttps = true'),
      'FILE:7: proxy.rules[1].usehttps: unknown key; the nearest is proxy.rules[1].use_https',
    ],
    'rules in the singular': [
      '[[proxy.rule]]\nmatch = "a"\naction = "deny"',
      'FILE:1: proxy.rule: unknown key; the nearest is proxy.rules',
    ],
    'a host pattern that is none': [
      'proxy.intercept = ["r.example", "r.*"]',
      'FILE:1: proxy.intercept[1]: "r.*" is not a host such as "registry.example", "*.example", "registry.example:8443" or "*"',
    ],
    'a user of the proxy without a password': [
      'proxy.username = "u"',
      'FILE:1: proxy.username: needs password_file beside it',
    ],
    'a network beyond its bits': [
      'upstream.allow_private = ["10.0.0.0/33"]',
      'FILE:1: upstream.allow_private[0]: "10.0.0.0/33" is not a network such as "10.0.0.0/8" or "fd00::/8", or an address',
    ],
    'a network that is a name': [
      'upstream.allow_private = ["10.0.0.0/8", "corp.example"]',
      'FILE:1: upstream.allow_private[1]: "corp.example" is not a network such as "10.0.0.0/8" or "fd00::/8", or an address',
    ],
    'plugins without programs': [
      '[[upstream.credential_plugins]]\nconfig = "/a"',
      'FILE:1: upstream.credential_plugins[0].bin_dir: is missing',
    ],
  }

  for (const [what, [toml, complaint]] of Object.entries(CASES)) {
    test(`is named, with its place: ${what}`, async () => assert.deepEqual(await complaints(toml), [complaint]))
  }

  test('in one item of a list does not hide one in another', async () => {
    const toml = rules('match = "("', 'action = "deny"', '[[proxy.rules]]', 'match = "b"', 'action = "none"')
    assert.deepEqual(await complaints(toml), [
      'FILE:9: proxy.rules[2].action: "none" is not one of "cache", "direct", "redirect", "deny"',
      'FILE:5: proxy.rules[1].match: "(" is not a regular expression: Unterminated group',
    ])
  })

  test('in what cannot be read as TOML from outside is named as it stands', async () => {
    const env = { SHOAL_PROXY__RULES: '[{ match = "a"', SHOAL_MIRROR__HOSTS: 'm=r' }
    assert.deepEqual(await complaints('', { env }), [
      'SHOAL_MIRROR__HOSTS: mirror.hosts: a string is not a table',
      'SHOAL_PROXY__RULES: proxy.rules: a string is not a list',
    ])
  })
})
