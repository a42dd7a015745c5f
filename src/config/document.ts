import { TypeGuard, type TSchema } from '@sinclair/typebox'
import { formatDefault } from './print.ts'
import { annotation, ConfigSchema, entrySchema, keysOf, kindOf } from './schema.ts'

const INTRODUCTION = `# Configuration

<!-- Generated from src/config/schema.ts by \`npm run generate\`. -->

One TOML file, looked for in this order: \`--config\`, \`$SHOAL_CONFIG\`, \`/etc/shoal/shoal.toml\`, none. Every key has a default; with no file
at all \`shoal serve\` is a working mirror of the public registries. [config/shoal.toml](../config/shoal.toml) is the annotated default.

* Durations (\`"5s"\`, \`"300ms"\`, \`"1m30s"\`; units ms, s, m, h, d) and sizes (\`"4MiB"\`, \`"50GiB"\`; units B, KiB, MiB, GiB, TiB, PiB and kB,
  MB, GB, TB, PB) are strings with units. Only \`"0"\` needs none.
* \`SHOAL_STORE__MAX_BYTES=10GiB\` in the environment overrides \`store.max_bytes\` (two underscores stand for a dot);
  \`--set store.max_bytes=10GiB\` overrides both. Strings need no quotes there; lists and tables are TOML values, a list of one may do without
  its brackets. Names with dots are quoted: \`--set 'registries."r.example".host=http://10.0.0.5:5000'\`.
* Relative paths are relative to the file's directory; in the environment and in \`--set\`, to the working directory.
* An unknown key, or an unknown \`SHOAL_\` variable, is an error that names the nearest known one. (The variables that Kubernetes sets for a
  Service called \`shoal\` are ignored.)
* Passwords come from files or from the environment, never from the configuration itself.
* \`shoal config check\` tells what is wrong, \`shoal config print\` shows what is in effect, \`shoal config schema\` prints a JSON Schema.
`

/** docs/config.md: every key with its type, default and description. */
export function configDocument(): string {
  return [INTRODUCTION, ...keysOf(ConfigSchema).map(([name, schema]) => section(name, schema))].join('\n')
}

function section(name: string, schema: TSchema): string {
  const entry = entrySchema(schema)
  const title = entry === undefined ? `[${name}]` : `[${name}."<name>"]`
  const rows = keysOf(entry ?? schema).flatMap(([key, child]) => rowsOf(key, child))
  return `## \`${title}\`

${schema.description ?? ''}

| key | type | default | |
|---|---|---|---|
${rows.join('\n')}
`
}

function rowsOf(key: string, schema: TSchema): string[] {
  const parts = keysOf(schema)
  if (parts.length > 0) return parts.flatMap(([part, child]) => rowsOf(`${key}.${part}`, child))
  return [
    `| \`${key}\` | ${typeName(schema)} | ${defaultCell(schema)} | ${(schema.description ?? '').replaceAll('|', '\\|')} |`,
  ]
}

function defaultCell(schema: TSchema): string {
  const dynamic = annotation(schema, 'x-default')
  if (dynamic !== undefined) return `\`${dynamic}\``
  return schema.default === undefined ? 'required' : `\`${formatDefault(schema)}\``
}

function typeName(schema: TSchema): string {
  if (TypeGuard.IsUnion(schema)) return schema.anyOf.map(choice => `\`${JSON.stringify(choice['const'])}\``).join(', ')
  if (TypeGuard.IsLiteral(schema)) return `\`${JSON.stringify(schema.const)}\``
  if (TypeGuard.IsInteger(schema)) return `${schema.minimum ?? 0} to ${schema.maximum ?? ''}`
  if (TypeGuard.IsArray(schema)) return 'list of addresses'
  switch (kindOf(schema)) {
    case 'duration':
      return 'duration'
    case 'size':
      return 'size'
    case 'url':
      return 'URL'
    case 'path':
    case 'secret-path':
      return 'path'
    case 'address':
    case 'registry-name':
    case undefined:
      return TypeGuard.IsBoolean(schema) ? 'true, false' : 'string'
  }
}

/** The schema as JSON Schema, for editors: without our own annotations, and requiring only what has no default. */
export function configSchema(): object {
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'shoal.toml',
    ...(plain(ConfigSchema) as object),
  }
}

function plain(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(plain)
  if (typeof node !== 'object' || node === null) return node
  const entries = Object.entries(node)
    .filter(([key]) => !key.startsWith('x-'))
    .map(([key, value]): [string, unknown] => [key, key === 'required' ? stillRequired(node, value) : plain(value)])
  return Object.fromEntries(entries.filter(([key, value]) => key !== 'required' || (value as string[]).length > 0))
}

function stillRequired(node: object, required: unknown): string[] {
  const properties = 'properties' in node ? (node.properties as Record<string, TSchema>) : {}
  return (required as string[]).filter(name => properties[name]?.default === undefined && !isTable(properties[name]))
}

function isTable(schema: TSchema | undefined): boolean {
  return schema !== undefined && (TypeGuard.IsObject(schema) || TypeGuard.IsRecord(schema))
}
