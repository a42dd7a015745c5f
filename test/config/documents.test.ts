import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import { test } from 'node:test'
import { annotatedConfig, configDocument, configSchema, loadConfig, printConfig } from '../../src/config/index.ts'
import { repositoryFile } from '../core/repository.ts'
import { NO_TLS } from './loading.ts'
import { TempFolder } from './temp-folder.ts'

const QUIET = { env: {}, defaultFile: '/nonexistent/shoal.toml', isRoot: true }

test('config/shoal.toml is what the schema generates', async () => {
  assert.equal(await fs.readFile(repositoryFile('config/shoal.toml'), 'utf8'), annotatedConfig())
})

test('docs/config.md is what the schema generates', async () => {
  assert.equal(await fs.readFile(repositoryFile('docs/config.md'), 'utf8'), configDocument())
})

test('loading the annotated configuration is the same as loading nothing', async () => {
  await using folder = await TempFolder.open()
  const file = await folder.write('shoal.toml', annotatedConfig())
  const [annotated, none] = [await loadConfig({ ...QUIET, file }), await loadConfig(QUIET)]
  assert.deepEqual(annotated.config, none.config)
})

test('the examples in the annotated configuration are right once their comment marks are gone', async () => {
  await using folder = await TempFolder.open()
  const text = annotatedConfig()
    .replaceAll(/^# (\[|[a-z_]+ = )/gm, '$1')
    .replace('host = "https://<name>"', '')
  const { config } = await loadConfig({ ...QUIET, file: await folder.write('shoal.toml', text) })
  assert.deepEqual(config.mirror.blobs, [{ prefix: '/models', origin: 's3-example', repository: 'blobs' }])
  assert.deepEqual(config.proxy.rules, [{ match: 'blobs/sha256.*', action: 'cache', useHttps: false }])
  assert.equal(config.upstream.credentialPlugins.length, 1)
  assert.deepEqual(config.registries, {
    'registry.corp.example': {
      host: 'https://registry.corp.example',
      tls: NO_TLS,
      visibility: 'auto',
      mirrors: [
        {
          host: 'http://10.0.0.5:5000',
          overridePath: false,
          headers: { 'X-Dragonfly-Registry': ['https://registry.corp.example'] },
          capabilities: ['pull', 'resolve'],
          healthCheckIntervalMs: 5000,
          failureLimit: 5,
          healthCheckPauseElapsedMs: 300_000,
          authThrough: true,
          tls: NO_TLS,
        },
      ],
    },
  })
  assert.deepEqual(
    Object.values(config.origins).map(({ type }) => type),
    ['oci-layout', 'localfs', 'localdisk', 'http', 's3', 'oss'],
  )
})

test('no line of the annotated configuration is wider than a screen', () => {
  assert.deepEqual(
    annotatedConfig()
      .split('\n')
      .filter(line => line.length > 120 || line.endsWith(' ')),
    [],
  )
})

test('what is printed loads to the same configuration, and shows no secret', async () => {
  await using folder = await TempFolder.open()
  await folder.write('password', 'hunter2')
  await folder.write('ca.pem', '')
  const toml = `
    state.path = "state\\u007f"
    [mirror]
    listen = ["unix:/run/a \\"b\\".sock"]
    hosts = { "m.example:1" = "r.example", m = "images" }
    [[mirror.blobs]]
    prefix = "/models"
    origin = "images"
    [[mirror.blobs]]
    socket = "/run/blob.sock"
    origin = "images"
    digest = "sha256:${'0'.repeat(64)}"
    [proxy]
    intercept = ["*.example"]
    username = "clients"
    password_file = "password"
    [[proxy.rules]]
    match = '^https?://[^/]+/"\\d"'
    action = "redirect"
    redirect = "http://b/$1"
    [[proxy.rules]]
    match = "b"
    action = "deny"
    [upstream]
    allow_private = ["10.0.0.0/8"]
    certs_d = "certs.d"
    credential_plugins = [{ config = "plugins.yaml", bin_dir = "bin" }]
    [registries."r.example"]
    username = "node"
    password_file = "password"
    tls = { ca = "ca.pem" }
    proxy = { url = "http://p:1", check_interval = 5 }
    [[registries."r.example".mirrors]]
    host = "http://a"
    headers = { X-One = "1", X-Two = ["1", "2"] }
    health_check_interval = 5
    tls = { ca = ["ca.pem"] }
    [[registries."r.example".mirrors]]
    host = "http://b"
    [registries."*"]
    host = "http://internal:5000/"
    username = "other"
    password_file = "env:OTHER"
    visibility = "shared"
    [origins.images]
    type = "oci-layout"
    path = "images"
    [origins.files]
    type = "localfs"
    dir = "files"
    alt_dirs = ["more"]
    [origins.web]
    type = "http"
    url = "unix:/run/web.sock"
    headers = { X-One = "1" }
    [origins.bucket]
    type = "oss"
    endpoint = "https://oss.example"
    bucket_name = "b"
    object_prefix = "p"
    access_key_id = "AK"
    secret_access_key_file = "password"
    session_token_file = "env:OTHER"
  `
  const env = { OTHER: 'hunter3', SHOAL_LOG__LEVEL: 'debug' }
  const first = await loadConfig({ ...QUIET, env, file: await folder.write('shoal.toml', toml) })
  const printed = printConfig(first.effective)
  assert.doesNotMatch(printed, /hunter/)
  assert.deepEqual(
    printed.match(/^# [a-z_]+: \*+$/gm)?.map(line => line.replace(/^# (.*):.*$/, '$1')),
    ['password', 'password', 'password', 'secret_access_key', 'session_token'],
  )
  assert.equal(printed.match(/^\[\[/gm)?.length, 7)

  await using elsewhere = await TempFolder.open()
  const again = await loadConfig({
    ...QUIET,
    env: { OTHER: 'hunter3' },
    file: await elsewhere.write('copy.toml', printed),
  })
  assert.deepEqual(again.config, first.config)
  assert.equal(printConfig(again.effective), printed)
})

test('the JSON Schema describes every key, refuses unknown ones and requires only what has no default', () => {
  const schema = JSON.parse(JSON.stringify(configSchema())) as SchemaNode
  const required: string[] = []
  const visit = (node: SchemaNode, path: string): void => {
    const entry = Object.values(node.patternProperties ?? {})[0]
    if (entry !== undefined) visit(entry, `${path}.*`)
    if (node.items !== undefined) visit(node.items, `${path}[]`)
    if (node.properties === undefined) return
    assert.equal(node.additionalProperties, false, path)
    required.push(...(node.required ?? []).map(name => `${path}.${name}`))
    for (const [name, child] of Object.entries(node.properties)) {
      assert.ok((child.description ?? '').endsWith('.'), `${path}.${name} has no description`)
      visit(child, `${path}.${name}`)
    }
  }
  visit(schema, '')
  assert.deepEqual(required.sort(), [
    '.mirror.blobs[].origin',
    '.origins.*.type',
    '.proxy.rules[].action',
    '.proxy.rules[].match',
    '.registries.*.mirrors[].host',
    '.upstream.credential_plugins[].bin_dir',
    '.upstream.credential_plugins[].config',
  ])
  assert.doesNotMatch(JSON.stringify(schema), /"x-/)
})

test('the JSON Schema takes what the configuration takes by another name or in another form', () => {
  const schema = JSON.parse(JSON.stringify(configSchema())) as SchemaNode
  const at = (...path: string[]): SchemaNode | undefined =>
    path.reduce<SchemaNode | undefined>(
      (node, key) => (key === '*' ? Object.values(node?.patternProperties ?? {})[0] : node?.properties?.[key]),
      schema,
    )
  assert.deepEqual(at('origins', '*', 'bucket_name'), at('origins', '*', 'bucket'))
  assert.deepEqual(at('registries', '*', 'proxy', 'check_interval')?.anyOf?.[1], { type: 'integer', minimum: 0 })
  assert.deepEqual(
    at('registries', '*', 'tls', 'ca')?.anyOf?.map(({ type }) => type),
    ['array', 'string'],
  )
})

test('the documentation says which keys belong to which type of origin, and gives each list of tables its own', () => {
  const document = configDocument()
  assert.match(document, /^\| `bucket` \| string \| required \| \*\*s3\*\*, \*\*oss\*\*: Name of the bucket/m)
  assert.match(document, /^\| `rules` \| list of tables \| `\[\]` \| See below\. \|$/m)
  assert.match(document, /^### `\[\[registries\."<name>"\.mirrors\]\]`$/m)
})

interface SchemaNode {
  readonly type?: string
  readonly description?: string
  readonly properties?: Record<string, SchemaNode>
  readonly patternProperties?: Record<string, SchemaNode>
  readonly items?: SchemaNode
  readonly anyOf?: readonly SchemaNode[]
  readonly additionalProperties?: boolean
  readonly required?: string[]
}
