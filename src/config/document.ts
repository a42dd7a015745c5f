import { TypeGuard, type TSchema } from '@sinclair/typebox'
import { titleOf } from './kinds.ts'
import { formatDefault } from './print.ts'
import {
  annotation,
  choicesOf,
  entrySchema,
  itemSchema,
  keysOf,
  kindOf,
  mayBeLone,
  mayBeSeconds,
  typesOf,
} from './schema-walk.ts'
import { ConfigSchema } from './schema.ts'

const INTRODUCTION = `# Configuration

<!-- Generated from src/config/schema.ts by \`npm run generate\`. -->

One TOML file, looked for in this order: \`--config\`, \`$SHOAL_CONFIG\`, \`/etc/shoal/shoal.toml\`, none. Every key has a default; with no file
at all \`shoal serve\` is a working mirror of the public registries. [config/shoal.toml](../config/shoal.toml) is the annotated default, and
[config/examples](../config/examples) has short files for common cases.

* Durations (\`"5s"\`, \`"300ms"\`, \`"1m30s"\`; units ms, s, m, h, d) and sizes (\`"4MiB"\`, \`"50GiB"\`; units B, KiB, MiB, GiB, TiB, PiB and kB,
  MB, GB, TB, PB) are strings with units. Only \`"0"\` needs none.
* \`SHOAL_STORE__MAX_BYTES=10GiB\` in the environment overrides \`store.max_bytes\` (two underscores stand for a dot);
  \`--set store.max_bytes=10GiB\` overrides both. Strings need no quotes there; lists and tables are TOML values, a list of one may do without
  its brackets. Names with dots are quoted: \`--set 'registries."r.example".host=http://10.0.0.5:5000'\`.
* Tables are merged, key by key, over all of these; a list replaces the one below it, a list of tables too:
  \`--set 'proxy.rules=[{ match = "/v2/", action = "deny" }]'\`.
* Relative paths are relative to the file's directory; in the environment and in \`--set\`, to the working directory.
* An unknown key, or an unknown \`SHOAL_\` variable, is an error that names the nearest known one. (The variables that Kubernetes sets for a
  Service called \`shoal\` are ignored.)
* Passwords and secret keys come from files or from the environment, never from the configuration itself.
* \`shoal config check\` tells what is wrong, \`shoal config print\` shows what is in effect, \`shoal config schema\` prints a JSON Schema.
`

/** docs/config.md: every key with its type, default and description. */
export function configDocument(): string {
  return [INTRODUCTION, ...keysOf(ConfigSchema).flatMap(([name, schema]) => sections(name, schema))].join('\n')
}

/** A table, and after it one section for each of its lists of tables. */
function sections(name: string, schema: TSchema): string[] {
  const entry = entrySchema(schema)
  const path = entry === undefined ? name : `${name}."<name>"`
  const keys = keysOf(entry ?? schema)
  const lists = keys.flatMap(([key, child]) => {
    const item = itemSchema(child)
    return item === undefined ? [] : [section(`### \`[[${path}.${key}]]\``, child, keysOf(item))]
  })
  return [section(`## \`[${path}]\``, schema, keys), ...lists]
}

function section(title: string, schema: TSchema, keys: readonly [string, TSchema][]): string {
  return `${title}

${schema.description ?? ''}

| key | type | default | |
|---|---|---|---|
${keys.flatMap(([key, child]) => rowsOf(key, child)).join('\n')}
`
}

function rowsOf(key: string, schema: TSchema, types = typesOf(schema)): string[] {
  const parts = keysOf(schema)
  if (parts.length > 0) return parts.flatMap(([part, child]) => rowsOf(`${key}.${part}`, child, types))
  const whose = types === undefined ? '' : `${types.map(type => `**${type}**`).join(', ')}: `
  const description = itemSchema(schema) === undefined ? (schema.description ?? '') : 'See below.'
  return [`| \`${key}\` | ${typeName(schema)} | ${defaultCell(schema)} | ${cell(whose + description)} |`]
}

function defaultCell(schema: TSchema): string {
  const dynamic = annotation(schema, 'x-default')
  if (dynamic !== undefined) return `\`${dynamic}\``
  return schema.default === undefined ? 'required' : `\`${formatDefault(schema)}\``
}

/** Text for a cell of a table: no separator, and nothing that Markdown would take for HTML. */
function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '\\<')
}

function typeName(schema: TSchema): string {
  const choices = choicesOf(schema)
  if (choices !== undefined) return choices.map(choice => `\`${JSON.stringify(choice)}\``).join(', ')
  if (TypeGuard.IsInteger(schema)) return `${schema.minimum ?? 0} to ${schema.maximum ?? ''}`
  if (TypeGuard.IsBoolean(schema)) return 'true, false'
  const entry = entrySchema(schema)
  if (entry !== undefined) return `table: ${typeName(entry)}`
  if (itemSchema(schema) !== undefined) return 'list of tables'
  if (TypeGuard.IsArray(schema)) {
    const one = typeName(schema.items)
    return `${mayBeLone(schema) ? `${one} or ` : ''}list of ${choicesOf(schema.items) === undefined ? plural(one) : one}`
  }
  return mayBeSeconds(schema) ? 'duration, or seconds' : titleOf(kindOf(schema))
}

function plural(word: string): string {
  return word.endsWith('s') ? `${word}es` : `${word}s`
}
