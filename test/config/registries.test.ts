import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { OriginTableOptions } from '../../src/upstream/index.ts'
import { complaints, load, loadToml, NO_TLS } from './loading.ts'
import { TempFolder } from './temp-folder.ts'

/** What a mirror is when nothing but its host is said. */
const MIRROR = {
  overridePath: false,
  headers: {},
  capabilities: ['pull', 'resolve'],
  healthCheckIntervalMs: 5000,
  failureLimit: 5,
  healthCheckPauseElapsedMs: 300_000,
  authThrough: true,
  tls: NO_TLS,
}

describe('a registry', () => {
  test('may have mirrors, in an order, each with its own settings', async () => {
    const { registries } = await loadToml(`
      [[registries."r.example".mirrors]]
      host = "http://10.0.0.5:5000/"
      [[registries."r.example".mirrors]]
      host = "https://mirror.example/cache"
      override_path = true
      headers = { "X-Dragonfly-Registry" = "https://r.example", X-Two = ["a", "b"], X-Empty = "" }
      ping_url = "http://10.0.0.6:4003/healthy"
      health_check_interval = "300ms"
      failure_limit = 255
      health_check_pause_elapsed = "1h"
      auth_through = false
      capabilities = ["pull"]
      tls = { skip_verify = true }
      [[registries."*".mirrors]]
      host = "http://any:1"
      [registries."*"]
      host = "http://internal"
    `)
    assert.deepEqual(registries['r.example']?.mirrors, [
      { ...MIRROR, host: 'http://10.0.0.5:5000' },
      {
        host: 'https://mirror.example/cache',
        overridePath: true,
        headers: { 'X-Dragonfly-Registry': ['https://r.example'], 'X-Two': ['a', 'b'], 'X-Empty': [''] },
        capabilities: ['pull'],
        pingUrl: 'http://10.0.0.6:4003/healthy',
        healthCheckIntervalMs: 300,
        failureLimit: 255,
        healthCheckPauseElapsedMs: 3_600_000,
        authThrough: false,
        tls: { ...NO_TLS, skipVerify: true },
      },
    ])
    assert.deepEqual(registries['*']?.mirrors, [{ ...MIRROR, host: 'http://any:1' }])
  })

  test('takes the settings of nydusd as they are: whole numbers are seconds', async () => {
    const { registries } = await loadToml(`
      [registries.r.proxy]
      url = "http://127.0.0.1:4001"
      ping_url = "http://127.0.0.1:4003/healthy"
      fallback = false
      check_interval = 5
      check_pause_elapsed = 300
      use_http = true
      [[registries.r.mirrors]]
      host = "http://10.0.0.5:5000"
      health_check_interval = 7
      health_check_pause_elapsed = 60
    `)
    assert.deepEqual(registries['r'], {
      host: 'https://r',
      tls: NO_TLS,
      visibility: 'auto',
      mirrors: [
        {
          ...MIRROR,
          host: 'http://10.0.0.5:5000',
          healthCheckIntervalMs: 7000,
          healthCheckPauseElapsedMs: 60_000,
        },
      ],
      proxy: {
        url: 'http://127.0.0.1:4001',
        pingUrl: 'http://127.0.0.1:4003/healthy',
        fallback: false,
        checkIntervalMs: 5000,
        checkPauseElapsedMs: 300_000,
        useHttp: true,
      },
    })
    const set = ['registries.r.proxy.url=http://p:1', 'registries.r.proxy.check_interval=8']
    assert.deepEqual((await load({ set })).config.registries['r']?.proxy, {
      url: 'http://p:1',
      fallback: true,
      checkIntervalMs: 8000,
      checkPauseElapsedMs: 300_000,
      useHttp: false,
    })
  })

  test('has no proxy unless the proxy has a URL', async () => {
    const { registries } = await loadToml('registries.r.proxy = { fallback = false }')
    assert.equal(Object.hasOwn(registries['r']!, 'proxy'), false)
  })

  test('says who may read what came from it', async () => {
    for (const visibility of ['auto', 'public', 'private', 'shared'])
      assert.equal(
        (await loadToml(`registries.r.visibility = "${visibility}"`)).registries['r']?.visibility,
        visibility,
      )
  })

  test('trusts one authority or several, given in the file, in a variable or on the command line', async () => {
    await using folder = await TempFolder.open()
    const [one, two] = [await folder.write('one.pem', ''), await folder.write('two.pem', '')]
    const toml = `
      registries.lone.tls.ca = "one.pem"
      registries.list.tls.ca = ["one.pem", "two.pem"]
      registries.none.tls.ca = ""
      [[registries.lone.mirrors]]
      host = "https://m"
      tls = { ca = "two.pem", cert = "one.pem", key = "two.pem" }
    `
    const env = { SHOAL_REGISTRIES__VARIABLE__TLS__CA: 'one.pem' }
    const set = [`registries.set.tls.ca="${two}"`]
    const file = await folder.write('shoal.toml', toml)
    const { registries } = (await load({ file, env, set, cwd: folder.path })).config
    assert.deepEqual(
      Object.entries(registries).map(([name, { tls }]) => [name, tls.ca]),
      [
        ['lone', [one]],
        ['list', [one, two]],
        ['none', []],
        ['variable', [one]],
        ['set', [two]],
      ],
    )
    assert.deepEqual(registries['lone']?.mirrors[0]?.tls, {
      ca: [two],
      clients: [{ cert: one, key: two }],
      skipVerify: false,
    })
  })

  test('and everything else of the table of origins is what that table takes', async () => {
    const { upstream, registries, origins } = await loadToml('')
    const options: OriginTableOptions = { ...upstream, registries, origins }
    assert.deepEqual(options.registries, {})
  })
})

describe('a problem of a registry', () => {
  const M = '[registries.r]\n[[registries.r.mirrors]]\nhost = "http://a"\n[[registries.r.mirrors]]\n'
  const CASES: Record<string, [toml: string, complaint: string]> = {
    'a mirror that is nowhere': [M, 'FILE:4: registries.r.mirrors[1].host: is missing'],
    'a mirror without a scheme': [
      `${M}host = "10.0.0.5:5000"`,
      'FILE:5: registries.r.mirrors[1].host: is not a URL such as "https://registry.example" or "http://10.0.0.5:5000"',
    ],
    'an unknown key of a mirror': [
      `${M}host = "http://b"\nauth_trough = true`,
      'FILE:6: registries.r.mirrors[1].auth_trough: unknown key; the nearest is registries.r.mirrors[1].auth_through',
    ],
    'an unknown key of a mirror in an inline list': [
      '[registries.r]\nmirrors = [\n  { host = "http://a", pingurl = "x" },\n]',
      'FILE:2: registries.r.mirrors[0].pingurl: unknown key; the nearest is registries.r.mirrors[0].ping_url',
    ],
    'an unknown key of a part of a mirror': [
      `${M}host = "http://b"\n[registries.r.mirrors.tls]\ncafile = "x"`,
      'FILE:7: registries.r.mirrors[1].tls.cafile: unknown key; the nearest is registries.r.mirrors[1].tls.ca',
    ],
    'an unknown key of a proxy': [
      'registries.r.proxy.uri = "http://p"',
      'FILE:1: registries.r.proxy.uri: unknown key; the nearest is registries.r.proxy.url',
    ],
    'a table for the mirrors': ['registries.r.mirrors = {}', 'FILE:1: registries.r.mirrors: a table is not a list'],
    'a string for a mirror': [
      'registries.r.mirrors = ["http://u:hunter2@m"]',
      'FILE:1: registries.r.mirrors[0]: a string is not a table',
    ],
    'a string for the mirrors': [
      'registries.r.mirrors = "http://u:hunter2@m"',
      'FILE:1: registries.r.mirrors: a string is not a list',
    ],
    'a string for the proxy': [
      'registries.r.proxy = "http://u:hunter2@p"',
      'FILE:1: registries.r.proxy: a string is not a table',
    ],
    'a fraction of a second': [
      'registries.r.proxy.check_interval = 1.5',
      'FILE:1: registries.r.proxy.check_interval: 1.5 is not a duration such as "5s", "300ms" or "1m30s", or a whole number of seconds',
    ],
    'less than no seconds': [
      'registries.r.proxy.check_interval = -1',
      'FILE:1: registries.r.proxy.check_interval: -1 is not a duration such as "5s", "300ms" or "1m30s", or a whole number of seconds',
    ],
    'no seconds': [
      'registries.r.proxy.check_interval = 0',
      'FILE:1: registries.r.proxy.check_interval: must be longer than 0',
    ],
    'more seconds than timers have': [
      'registries.r.proxy.check_pause_elapsed = 9999999',
      'FILE:1: registries.r.proxy.check_pause_elapsed: "9999999s" is longer than 24d',
    ],
    'a duration that is not nydusd’s as a number': [
      'upstream.idle_timeout = 5',
      'FILE:1: upstream.idle_timeout: 5 is not a duration such as "5s", "300ms" or "1m30s"',
    ],
    'no failure at all': [
      `${M}host = "http://b"\nfailure_limit = 0`,
      'FILE:6: registries.r.mirrors[1].failure_limit: 0 is not a whole number from 1 to 255',
    ],
    'a mirror asked for nothing': [
      `${M}host = "http://b"\ncapabilities = []`,
      'FILE:6: registries.r.mirrors[1].capabilities: must not be empty',
    ],
    'a mirror asked to take what is pushed': [
      `${M}host = "http://b"\ncapabilities = ["push"]`,
      'FILE:6: registries.r.mirrors[1].capabilities[0]: "push" is not one of "pull", "resolve"',
    ],
    'a certificate of a mirror without its key': [
      `${M}host = "http://b"\ntls.cert = "/dev/null"`,
      'FILE:6: registries.r.mirrors[1].tls.cert: needs tls.key beside it',
    ],
    'one of several authorities that is not there': [
      'registries.r.tls.ca = ["/dev/null", "/nonexistent/ca"]',
      'FILE:1: registries.r.tls.ca: /nonexistent/ca cannot be read: ENOENT',
    ],
    'an authority without a name': ['registries.r.tls.ca = [""]', 'FILE:1: registries.r.tls.ca[0]: must not be empty'],
    'a number for an authority': [
      'registries.r.tls.ca = 5',
      'FILE:1: registries.r.tls.ca: 5 is not a string or a list of strings',
    ],
    'a header that is no header': [
      `${M}host = "http://b"\nheaders = { "X Y" = "1" }`,
      'FILE:6: registries.r.mirrors[1].headers."X Y": is not the name of a header',
    ],
    'a header that ends early': [
      `${M}host = "http://b"\nheaders.X = "hunter2\\r\\nY: 1"`,
      'FILE:6: registries.r.mirrors[1].headers.X[0]: is not the value of a header: visible characters, spaces and tabs',
    ],
    'a header with a number': [
      `${M}host = "http://b"\nheaders.X = 12345`,
      'FILE:6: registries.r.mirrors[1].headers.X: is not a string or a list of strings',
    ],
    'a header with no value': [
      `${M}host = "http://b"\nheaders.X = []`,
      'FILE:6: registries.r.mirrors[1].headers.X: must not be empty',
    ],
    'a header twice': [
      `${M}host = "http://b"\nheaders = { X-A = "1", x-a = "2" }`,
      'FILE:6: registries.r.mirrors[1].headers.x-a: is the same as X-A',
    ],
    'a header with a credential': [
      `${M}host = "http://b"\nheaders = { AUTHORIZATION = "Basic hunter2" }`,
      'FILE:6: registries.r.mirrors[1].headers.AUTHORIZATION: must not be given here: credentials come from files, not from the configuration',
    ],
    'a header that frames messages': [
      `${M}host = "http://b"\nheaders = { Content-Length = "1" }`,
      'FILE:6: registries.r.mirrors[1].headers.Content-Length: must not be given here: Shoal sets it itself',
    ],
    'an unknown visibility': [
      'registries.r.visibility = "all"',
      'FILE:1: registries.r.visibility: "all" is not one of "auto", "public", "private", "shared"',
    ],
    'a login for what is public': [
      '[registries.r]\nvisibility = "public"\nusername = "u"\npassword_file = "/etc/hostname"',
      'FILE:3: registries.r.username: contradicts visibility "public": no credential is sent',
    ],
    'a proxy with credentials in its URL': [
      'registries.r.proxy.url = "http://u:hunter2@p"',
      'FILE:1: registries.r.proxy.url: must not hold credentials; use username and password_file',
    ],
  }

  for (const [what, [toml, complaint]] of Object.entries(CASES)) {
    test(`is named, with its place: ${what}`, async () => assert.deepEqual(await complaints(toml), [complaint]))
  }

  test('in a list of tables on the command line is named by its index', async () => {
    const set = ['registries.r.mirrors=[{ host = "http://a" }, { host = "b" }]']
    assert.deepEqual(await complaints('', { set }), [
      '--set: registries.r.mirrors[1].host: is not a URL such as "https://registry.example" or "http://10.0.0.5:5000"',
    ])
  })
})
