import type { TSchema } from '@sinclair/typebox'
import { annotation, ConfigSchema, entrySchema, keysOf, type RawConfig } from './schema.ts'
import { formatKey, formatPath, formatString, isTree, newTree, type KeyPath, type Tree } from '../core/index.ts'

/** Columns of a comment in config/shoal.toml, `# ` included. */
const COMMENT_WIDTH = 120
const MASK = '********'

/**
 * The effective configuration as TOML that loads to the same again. The configuration holds where passwords come from, never one; that
 * there is one is shown by a masked comment.
 */
export function printConfig(effective: RawConfig): string {
  const sections = keysOf(ConfigSchema).flatMap(([name, schema]) => {
    const value: unknown = (effective as Tree)[name]
    if (!isTree(value)) return []
    const entry = entrySchema(schema)
    if (entry === undefined) return [printTable([name], schema, value)]
    return Object.entries(value).map(([key, child]) =>
      printTable([name, key], entry, isTree(child) ? child : newTree()),
    )
  })
  return sections.join('\n')
}

function printTable(path: KeyPath, schema: TSchema, table: Tree): string {
  const lines = keysOf(schema).flatMap(([key]) => {
    const value = table[key]
    if (value === undefined) return []
    const line = `${formatKey(key)} = ${formatValue(value)}\n`
    return key === 'password_file' && value !== '' ? [line, `# password: ${MASK}\n`] : [line]
  })
  return `[${formatPath(path)}]\n${lines.join('')}`
}

/** config/shoal.toml: every key with its default, and its description as a comment. Loading it is the same as loading nothing. */
export function annotatedConfig(): string {
  const head = [
    ...comment(
      'The configuration of shoal: every key, with its default. Generated from the schema in src/config/schema.ts.',
    ),
    ...comment('Looked for in this order: --config, $SHOAL_CONFIG, /etc/shoal/shoal.toml, none.'),
    ...comment('Durations ("5s", "300ms", "1m30s") and sizes ("4MiB", "50GiB") are strings with units.'),
    ...comment('SHOAL_STORE__MAX_BYTES=10GiB overrides store.max_bytes; --set store.max_bytes=10GiB overrides both.'),
    '',
  ]
  const sections = keysOf(ConfigSchema).flatMap(([name, schema]) => annotateSection(name, schema))
  return `${[...head, ...sections].join('\n').trimEnd()}\n`
}

/** A table with free names has no default to show: an example takes its place, commented out. */
function annotateSection(name: string, schema: TSchema): string[] {
  const entry = entrySchema(schema)
  const path = entry === undefined ? [name] : [name, annotation(schema, 'x-example') ?? 'name']
  const mark = entry === undefined ? '' : '# '
  const keys = keysOf(entry ?? schema).flatMap(([key, child]) => annotateKey(key, child, mark))
  return [...comment(schema.description ?? ''), `${mark}[${formatPath(path)}]`, ...keys, '']
}

function annotateKey(key: string, schema: TSchema, mark: string): string[] {
  const dynamic = annotation(schema, 'x-default')
  const described = [...comment(schema.description ?? ''), ...keysOf(schema).flatMap(describePart)]
  if (dynamic !== undefined) return [...described, `# ${key} = ${dynamic}`]
  return [...described, `${mark}${key} = ${formatDefault(schema)}`]
}

function describePart([key, schema]: [string, TSchema]): string[] {
  return comment(`  ${key}: ${schema.description ?? ''}`)
}

/** The default of a key as TOML; for a key that has none, the only value it may have, or an empty string. */
export function formatDefault(schema: TSchema): string {
  const parts = keysOf(schema)
  if (parts.length > 0)
    return `{ ${parts.map(([key, part]) => `${formatKey(key)} = ${formatDefault(part)}`).join(', ')} }`
  const value: unknown = schema.default ?? (schema['const'] as unknown)
  return value === undefined ? '""' : formatValue(value)
}

function formatValue(value: unknown): string {
  if (typeof value === 'string') return formatString(value)
  if (Array.isArray(value)) return `[${value.map(formatValue).join(', ')}]`
  if (!isTree(value)) return String(value)
  const pairs = Object.entries(value).map(([key, child]) => `${formatKey(key)} = ${formatValue(child)}`)
  return pairs.length === 0 ? '{}' : `{ ${pairs.join(', ')} }`
}

function comment(text: string): string[] {
  const lines: string[] = []
  let line = '#'
  for (const word of text.split(/(?<=\S) /)) {
    if (line.length + 1 + word.length > COMMENT_WIDTH) {
      lines.push(line)
      line = '#'
    }
    line += ` ${word}`
  }
  return [...lines, line]
}
