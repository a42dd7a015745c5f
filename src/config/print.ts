import type { TSchema } from '@sinclair/typebox'
import { formatKey, formatPath, formatString, isTree, newTree, type KeyPath, type Tree } from '../core/index.ts'
import { entrySchema, itemSchema, keysOf, kindOf } from './schema-walk.ts'
import { ConfigSchema, type RawConfig } from './schema.ts'

const MASK = '********'

/**
 * The effective configuration as TOML that loads to the same again. The configuration holds where secrets come from, never one; that
 * there is one is shown by a masked comment.
 */
export function printConfig(effective: RawConfig): string {
  const sections = keysOf(ConfigSchema).flatMap(([name, schema]) => {
    const value: unknown = (effective as Tree)[name]
    if (!isTree(value)) return []
    const entry = entrySchema(schema)
    if (entry === undefined) return printTable([name], schema, value)
    return Object.entries(value).flatMap(([key, child]) =>
      printTable([name, key], entry, isTree(child) ? child : newTree()),
    )
  })
  return sections.join('\n')
}

/** The table, and after it, since TOML wants it so, its lists of tables. */
function printTable(path: readonly string[], schema: TSchema, table: Tree, header = headerOf(path)): string[] {
  const lines: string[] = []
  const below: string[] = []
  for (const [key, child] of keysOf(schema)) {
    const value = table[key]
    const item = itemSchema(child)
    if (value === undefined) continue
    if (item !== undefined && Array.isArray(value) && value.length > 0) {
      const list = [...path, key]
      below.push(...value.filter(isTree).flatMap(one => printTable(list, item, one, headerOf(list, true))))
      continue
    }
    lines.push(`${formatKey(key)} = ${formatValue(value)}\n`)
    if (kindOf(child) === 'secret-path' && value !== '') lines.push(`# ${key.replace(/_file$/, '')}: ${MASK}\n`)
  }
  return [`${header}\n${lines.join('')}`, ...below]
}

/** `[path]`, or `[[path]]` for one table of a list. */
export function headerOf(path: KeyPath, isItem = false): string {
  return isItem ? `[[${formatPath(path)}]]` : `[${formatPath(path)}]`
}

/** A TOML value on one line. */
export function formatValue(value: unknown): string {
  if (typeof value === 'string') return formatString(value)
  if (Array.isArray(value)) return `[${value.map(formatValue).join(', ')}]`
  if (!isTree(value)) return String(value)
  const pairs = Object.entries(value).map(([key, child]) => `${formatKey(key)} = ${formatValue(child)}`)
  return pairs.length === 0 ? '{}' : `{ ${pairs.join(', ')} }`
}

/** The default of a key as TOML; for a key that has none, an empty string. */
export function formatDefault(schema: TSchema): string {
  const parts = keysOf(schema)
  if (parts.length > 0)
    return `{ ${parts.map(([key, part]) => `${formatKey(key)} = ${formatDefault(part)}`).join(', ')} }`
  const value: unknown = schema.default
  return value === undefined ? '""' : formatValue(value)
}
