import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import { test } from 'node:test'
import { annotatedConfig, configDocument, configSchema, loadConfig, printConfig } from '../../src/config/index.ts'
import { repositoryFile } from '../core/repository.ts'
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

test('the examples in the annotated configuration are right once they are filled in', async () => {
  await using folder = await TempFolder.open()
  const text = annotatedConfig()
    .replaceAll(/^# (\[|[a-z_]+ = )/gm, '$1')
    .replace('host = "https://<name>"', 'host = "https://registry.corp.example"')
    .replace('path = ""', 'path = "/images"')
  const { config } = await loadConfig({ ...QUIET, file: await folder.write('shoal.toml', text) })
  assert.deepEqual(config.registries, {
    'registry.corp.example': { host: 'https://registry.corp.example', tls: { skipVerify: false } },
  })
  assert.deepEqual(config.origins, { images: { type: 'oci-layout', path: '/images' } })
})

test('no line of the annotated configuration is wider than a screen', () => {
  assert.deepEqual(
    annotatedConfig()
      .split('\n')
      .filter(line => line.length > 120 || line.endsWith(' ')),
    [],
  )
})

test('what is printed loads to the same configuration, and shows no password', async () => {
  await using folder = await TempFolder.open()
  await folder.write('password', 'hunter2')
  await folder.write('ca.pem', '')
  const toml = `
    mirror.listen = ["unix:/run/a \\"b\\".sock"]
    state.path = "state\\u007f"
    [registries."r.example"]
    username = "node"
    password_file = "password"
    tls = { ca = "ca.pem" }
    [registries."*"]
    host = "http://internal:5000/"
    username = "other"
    password_file = "env:OTHER"
    [origins.images]
    type = "oci-layout"
    path = "images"
  `
  const env = { OTHER: 'hunter3', SHOAL_LOG__LEVEL: 'debug' }
  const first = await loadConfig({ ...QUIET, env, file: await folder.write('shoal.toml', toml) })
  const printed = printConfig(first.effective)
  assert.doesNotMatch(printed, /hunter/)
  assert.equal(printed.match(/^# password: \*+$/gm)?.length, 2)

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
    if (node.properties === undefined) return
    assert.equal(node.additionalProperties, false, path)
    required.push(...(node.required ?? []).map(name => `${path}.${name}`))
    for (const [name, child] of Object.entries(node.properties)) {
      assert.ok((child.description ?? '').endsWith('.'), `${path}.${name} has no description`)
      visit(child, `${path}.${name}`)
    }
  }
  visit(schema, '')
  assert.deepEqual(required.sort(), ['.origins.*.path', '.origins.*.type'])
  assert.doesNotMatch(JSON.stringify(schema), /"x-/)
})

interface SchemaNode {
  readonly description?: string
  readonly properties?: Record<string, SchemaNode>
  readonly patternProperties?: Record<string, SchemaNode>
  readonly additionalProperties?: boolean
  readonly required?: string[]
}
