import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { errorCode } from '../../../src/core/index.ts'
import { parseHostsFile, type ParsedHosts } from '../../../src/upstream/hosts/hosts-file.ts'
import type { MirrorOptions } from '../../../src/upstream/options.ts'
import { spelled } from '../rig.ts'

const PLACE = { file: '/certs.d/x/hosts.toml', directory: '/certs.d/x' }
const NO_TLS = { ca: [], clients: [], skipVerify: false }
const TARGET = { overridePath: false, headers: {}, tls: NO_TLS, capabilities: ['pull', 'resolve'] }
const MIRROR = {
  ...TARGET,
  healthCheckIntervalMs: 5_000,
  failureLimit: 5,
  healthCheckPauseElapsedMs: 300_000,
  authThrough: true,
}

function parse(text: string): ParsedHosts {
  return parseHostsFile(text, PLACE)
}

/** The first host of a file that says this of it. */
function mirror(text: string): MirrorOptions | undefined {
  return parse(`[host."https://m"]\n${text}`).mirrors[0]
}

function refusal(text: string): string {
  try {
    parse(text)
  } catch (error: unknown) {
    assert.equal(errorCode(error), 'ERR_CONFIG_INVALID', spelled(error))
    assert.ok(error instanceof Error)
    assert.ok(error.message.startsWith(PLACE.file), error.message)
    return error.message.slice(PLACE.file.length)
  }
  return assert.fail(`not refused: ${text}`)
}

test('a file that says nothing leaves the registry alone', () => {
  for (const text of ['', '# nothing\n', '[host]\n', 'server = ""\n', '[header]\n', 'capabilities = ["pull"]\n']) {
    const { mirrors, namedTls, server, unknown } = parse(text)
    assert.deepEqual(
      { mirrors, namedTls, server, unknown },
      { mirrors: [], namedTls: [], server: undefined, unknown: [] },
      text,
    )
  }
})

test('a server with a mirror before it', () => {
  const { mirrors, server } = parse(`server = "https://docker.example"

[host."https://registry-1.docker.example"]
  capabilities = ["pull", "resolve"]
`)
  assert.deepEqual(server, { host: 'https://docker.example', ...TARGET })
  assert.deepEqual(mirrors, [{ ...MIRROR, host: 'https://registry-1.docker.example' }])
})

test('mirrors are trusted with what they are said to be capable of, and have certificates of their own', () => {
  const { mirrors, namedTls } = parse(`
server = "https://registry.example"
[host."https://public-mirror.example"]
  capabilities = ["pull"]                  # tags are not resolved there
[host."https://docker-mirror.internal"]
  capabilities = ["Pull", "RESOLVE", "referrers"]
  ca = "docker-mirror.crt"
`)
  assert.deepEqual(mirrors, [
    { ...MIRROR, host: 'https://public-mirror.example', capabilities: ['pull'] },
    { ...MIRROR, host: 'https://docker-mirror.internal', tls: { ...NO_TLS, ca: ['/certs.d/x/docker-mirror.crt'] } },
  ])
  assert.deepEqual(namedTls, [
    {
      at: '/certs.d/x/hosts.toml:7: host."https://docker-mirror.internal".ca',
      tls: { ...NO_TLS, ca: ['/certs.d/x/docker-mirror.crt'] },
    },
  ])
})

test('a server alone keeps everybody from the registry itself', () => {
  const { mirrors, server } = parse('server = "https://registry.example"\n')
  assert.deepEqual([server?.host, mirrors], ['https://registry.example', []])
})

test('TLS that nobody checks, of a mirror by its address', () => {
  const { mirrors } = parse(`[host."http://192.168.31.250:5000"]
  capabilities = ["pull", "resolve", "push"]
  skip_verify = true
`)
  assert.deepEqual(mirrors, [{ ...MIRROR, host: 'http://192.168.31.250:5000', tls: { ...NO_TLS, skipVerify: true } }])
})

test('every key of a host is understood', () => {
  assert.deepEqual(
    mirror(`
ca = ["/etc/certs/one.pem", "two.pem"]
client = [["client.cert", "client.key"], ["both.pem", ""], "alone.pem"]
skip_verify = true
override_path = true
dial_timeout = "200ms"
ping_url = "https://m/ping?deep=1"
health_check_interval = 7
failure_limit = 3
health_check_pause_elapsed = "2m"
auth_through = false
[host."https://m".header]
  X-Dragonfly-Registry = "https://index.docker.io"
  x-custom = ["part a", "part b"]
`),
    {
      host: 'https://m',
      overridePath: true,
      headers: { 'x-dragonfly-registry': ['https://index.docker.io'], 'x-custom': ['part a', 'part b'] },
      tls: {
        ca: ['/etc/certs/one.pem', '/certs.d/x/two.pem'],
        clients: [
          { cert: '/certs.d/x/client.cert', key: '/certs.d/x/client.key' },
          { cert: '/certs.d/x/both.pem' },
          { cert: '/certs.d/x/alone.pem' },
        ],
        skipVerify: true,
      },
      capabilities: ['pull', 'resolve'],
      connectTimeoutMs: 200,
      pingUrl: 'https://m/ping?deep=1',
      healthCheckIntervalMs: 7_000,
      failureLimit: 3,
      healthCheckPauseElapsedMs: 120_000,
      authThrough: false,
    },
  )
})

test('client certificates come in three shapes', () => {
  const clients = (value: string): unknown => mirror(`client = ${value}`)?.tls.clients
  assert.deepEqual(clients('"a.pem"'), [{ cert: '/certs.d/x/a.pem' }])
  assert.deepEqual(clients('["a.pem", "/b.pem"]'), [{ cert: '/certs.d/x/a.pem' }, { cert: '/b.pem' }])
  assert.deepEqual(clients('[["a.cert", "a.key"]]'), [{ cert: '/certs.d/x/a.cert', key: '/certs.d/x/a.key' }])
  assert.deepEqual(clients('[]'), [])
})

test('what is zero, empty or an empty list is as good as not said', () => {
  const said =
    'dial_timeout = ""\nping_url = ""\nhealth_check_interval = 0\nfailure_limit = 0\nhealth_check_pause_elapsed = "0s"'
  assert.deepEqual(mirror(`${said}\ncapabilities = []\nca = []`), { ...MIRROR, host: 'https://m' })
})

test('keys at the root are about the server, or about the registry itself where none is named', () => {
  const keys = 'ca = "a.pem"\ncapabilities = ["pull"]\noverride_path = true\ndial_timeout = "1s"\n'
  const rest = '[host."https://m"]\n[header]\n  x-a = "b"\n'
  const common = { headers: { 'x-a': ['b'] }, tls: { ...NO_TLS, ca: ['/certs.d/x/a.pem'] }, connectTimeoutMs: 1000 }
  const named = parse(`server = "r.example/api"\n${keys}${rest}`)
  assert.deepEqual(named.server, {
    host: 'https://r.example/api',
    ...common,
    overridePath: true,
    capabilities: ['pull'],
  })
  // As containerd has it: the registry itself has the ordinary path and all capabilities.
  assert.deepEqual(parse(`${keys}${rest}`).server, {
    ...common,
    overridePath: false,
    capabilities: ['pull', 'resolve'],
  })
  for (const { mirrors } of [named, parse(`${keys}${rest}`)])
    assert.deepEqual(mirrors, [{ ...MIRROR, host: 'https://m' }])
  for (const one of ['skip_verify = true', 'client = "c.pem"', 'dial_timeout = "1s"', '[header]\nx = "y"']) {
    assert.notEqual(parse(one).server, undefined, one)
  }
})

test('hosts are tried in the order of the file, whatever they look like', () => {
  const names = ['https://b', '10', 'https://a', '2', 'c:5000']
  const { mirrors } = parse(names.map(name => `[host."${name}"]\n`).join(''))
  assert.deepEqual(
    mirrors.map(({ host }) => host),
    ['https://b', 'https://0.0.0.10', 'https://a', 'https://0.0.0.2', 'https://c:5000'],
  )
  const nested = parse(
    '[host."https://z".header]\nx = "y"\n[host."https://y"]\n[host."https://z"]\nskip_verify = true\n',
  )
  assert.deepEqual(
    nested.mirrors.map(({ host }) => host),
    ['https://z', 'https://y'],
  )
})

test('a host that is only pushed to is left out, but it has to be right', () => {
  const { mirrors } = parse('[host."https://p"]\ncapabilities = ["push"]\n[host."https://m"]\n')
  assert.deepEqual(
    mirrors.map(({ host }) => host),
    ['https://m'],
  )
  assert.deepEqual(parse('server = "https://p"\ncapabilities = ["push"]\n').server?.capabilities, [])
  assert.match(refusal('[host."https://p"]\ncapabilities = ["push"]\nca = 1\n'), /^:3: host\."https:\/\/p"\.ca must be/)
})

test('URLs may lack the scheme, and are kept with their paths', () => {
  for (const [text, host] of [
    ['r.example', 'https://r.example'],
    ['r.example:5000', 'https://r.example:5000'],
    ['localhost:5000', 'https://localhost:5000'],
    ['httpd.example', 'https://httpd.example'],
    ['http://r.example:80/', 'http://r.example'],
    ['https://r.example/v2/', 'https://r.example/v2'],
    ['https://r.example//a//b/', 'https://r.example/a/b'],
    ['http://[::1]:5000', 'http://[::1]:5000'],
  ] as const) {
    assert.equal(parse(`server = "${text}"`).server?.host, host, text)
    assert.equal(parse(`[host."${text}"]`).mirrors[0]?.host, host, text)
  }
})

test('unknown keys are told with their lines, and do no harm', () => {
  const { mirrors, unknown } = parse(`server = "https://r.example"
proxy = "http://my-proxy:8080"
[host."https://m"]
  capability = ["pull"]
  server = "x"
[plugins]
  a = 1
`)
  assert.deepEqual(unknown, [
    { key: 'proxy', line: 2 },
    { key: 'plugins', line: 6 },
    { key: 'host."https://m".capability', line: 4 },
    { key: 'host."https://m".server', line: 5 },
  ])
  assert.equal(mirrors.length, 1)
})

test('what is wrong is told with line and key', () => {
  const host = (rest: string): string => `[host."https://m"]\n${rest}\n`
  for (const [text, wanted] of [
    ['server = 1', ':1: server must be http[s]://host[:port][/path]'],
    ['\nserver = "ftp://r.example"', ':2: server must be http[s]://host[:port][/path]'],
    ['server = "https://"', ':1: server must be'],
    ['host = "https://m"', ':1: host must be a table'],
    ['[host]\n"https://m" = 1', ':2: host."https://m" must be a table'],
    ['[host]\n["host"."ssh://m"]', ':2: host has a name that is not http[s]://host[:port][/path]'],
    ['[host.""]', ':1: host has a name that is not'],
    ['capabilities = "pull"', ':1: capabilities must be a list of "pull", "resolve", "push" and "referrers"'],
    [host('capabilities = ["pull", "fetch"]'), ':2: host."https://m".capabilities must be a list'],
    [host('capabilities = [1]'), ':2: host."https://m".capabilities must be a list'],
    [host('ca = 1'), ':2: host."https://m".ca must be a file or a list of files'],
    [host('ca = ["a", 1]'), ':2: host."https://m".ca must be'],
    [host('client = {}'), ':2: host."https://m".client must be a file, a list of files, or a list of pairs of files'],
    [host('client = [["a", "b", "c"]]'), ':2: host."https://m".client must be'],
    [host('client = [[]]'), ':2: host."https://m".client must be'],
    [host('skip_verify = "yes"'), ':2: host."https://m".skip_verify must be true or false'],
    [host('override_path = 1'), ':2: host."https://m".override_path must be true or false'],
    [host('auth_through = 1'), ':2: host."https://m".auth_through must be true or false'],
    [host('dial_timeout = 5'), ':2: host."https://m".dial_timeout must be a duration such as "5s"'],
    [host('dial_timeout = "5"'), ':2: host."https://m".dial_timeout must be a duration'],
    [host('dial_timeout = "-5s"'), ':2: host."https://m".dial_timeout must be a duration'],
    [host('health_check_interval = -1'), ':2: host."https://m".health_check_interval must be seconds, or a duration'],
    [host('health_check_pause_elapsed = "x"'), ':2: host."https://m".health_check_pause_elapsed must be seconds'],
    [host('failure_limit = 1.5'), ':2: host."https://m".failure_limit must be a whole number'],
    [host('failure_limit = "1"'), ':2: host."https://m".failure_limit must be a whole number'],
    [host('ping_url = "ftp://x"'), ':2: host."https://m".ping_url must be a URL'],
    [host('header = "x: y"'), ':2: host."https://m".header must be a table'],
    [host('header = { x = 1 }'), ':2: host."https://m".header.x must be a header: a string or a list of strings'],
    [host('[host."https://m".header]\n"a b" = "c"'), ':3: host."https://m".header."a b" must be a header'],
    ['[header]\nx = ["a", 1]', ':2: header.x must be a header'],
    ['server =', ':1:'],
    ['server = "a"\nserver = "b"', ':2:'],
    ['[host."https://m"]\n[host."https://m"]', ':2:'],
    [`a = ${'['.repeat(5000)}`, ':1:'],
  ] as const) {
    assert.ok(refusal(text).startsWith(wanted), `${text}: ${refusal(text)}`)
  }
})

test('no value, and no URL with a secret in it, is repeated in a complaint', () => {
  for (const text of [
    'server = "https://user:SECRET@r.example"',
    'server = "https://r.example/?token=SECRET"',
    'server = "https://r.example/#SECRET"',
    '[host."https://user:SECRET@r.example"]',
    '[host."https://r.example/?token=SECRET"]\nca = 1',
    '[host."https://m"]\nping_url = "https://user:SECRET@m/"',
    '[header]\nauthorization = ["Basic SECRET", 1]',
    '[header]\nauthorization = "Basic SECRET\\n"',
    '[header]\nauthorization = "Basic SECRET',
    '[header]\nauthorization = SECRET',
    'skip_verify = "SECRET"',
  ]) {
    let thrown: unknown
    try {
      parse(text)
    } catch (error: unknown) {
      thrown = error
    }
    assert.equal(errorCode(thrown), 'ERR_CONFIG_INVALID', text)
    assert.ok(!spelled(thrown).includes('SECRET'), spelled(thrown))
  }
})

test('any text is either understood or refused with the name of the file', () => {
  const key = fc.constantFrom(
    ...['server', 'host', 'ca', 'client', 'capabilities', 'header', 'skip_verify', 'dial_timeout', 'failure_limit'],
    ...['__proto__', 'constructor', '"https://m"', '"10"', '""', 'x'],
  )
  const value = fc.constantFrom(
    ...['1', '-1', '1.5', 'nan', 'true', '"https://m"', '""', '[]', '[[]]', '["a"]', '[["a", "b"]]', '{}', '{ a = 1 }'],
    ...['1979-05-27', '"pull"', '["pull"]', '"5s"', "'''x\ny'''"],
  )
  const line = fc.oneof(
    fc.tuple(fc.array(key, { minLength: 1, maxLength: 3 }), value).map(([keys, text]) => `${keys.join('.')} = ${text}`),
    fc.array(key, { minLength: 1, maxLength: 3 }).map(keys => `[${keys.join('.')}]`),
    fc.array(key, { minLength: 1, maxLength: 2 }).map(keys => `[[${keys.join('.')}]]`),
    fc.string({ maxLength: 20 }),
  )
  fc.assert(
    fc.property(fc.array(line, { maxLength: 8 }), lines => {
      try {
        const { mirrors, namedTls, server, unknown } = parse(lines.join('\n'))
        assert.ok(mirrors.every(({ host }) => URL.canParse(host)))
        assert.ok(server?.host === undefined || URL.canParse(server.host))
        assert.ok(namedTls.every(({ at }) => at.startsWith(PLACE.file)))
        assert.ok(unknown.every(entry => entry.key !== ''))
      } catch (error: unknown) {
        assert.equal(errorCode(error), 'ERR_CONFIG_INVALID', spelled(error))
        assert.ok(error instanceof Error && error.message.startsWith(`${PLACE.file}:`), spelled(error))
      }
    }),
    { numRuns: 1000 },
  )
})
