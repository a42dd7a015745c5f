import type { TSchema } from '@sinclair/typebox'
import { newTree, type Tree } from '../core/index.ts'
import { aliasesOf, isTable } from './schema-walk.ts'
import { ConfigSchema } from './schema.ts'

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
  const bare = newTree(
    Object.entries(node)
      .filter(([key]) => !key.startsWith('x-'))
      .map(([key, value]): [string, unknown] => {
        if (key === 'required') return [key, stillRequired(node, value as string[])]
        return [key, plain(key === 'properties' ? withAliases(value as Record<string, TSchema>) : value)]
      }),
  )
  if (Array.isArray(bare['required']) && bare['required'].length === 0) delete bare['required']
  return widened(node, bare)
}

/** What canonical() understands besides, in the words of JSON Schema. */
function widened(node: object, bare: Tree): Tree {
  const isLone = 'x-lone' in node && node['x-lone'] === true
  const isSeconds = 'x-seconds' in node && node['x-seconds'] === true
  if (!isLone && !isSeconds) return bare
  const { description, default: value, ...rest } = bare
  const other = isLone ? { type: 'string' } : { type: 'integer', minimum: 0 }
  return {
    ...(description === undefined ? {} : { description }),
    ...(value === undefined ? {} : { default: value }),
    anyOf: [rest, other],
  }
}

function withAliases(properties: Readonly<Record<string, TSchema>>): Record<string, TSchema> {
  return Object.fromEntries(
    Object.entries(properties).flatMap(([key, schema]) => [key, ...aliasesOf(schema)].map(name => [name, schema])),
  )
}

function stillRequired(node: object, required: readonly string[]): string[] {
  const properties = 'properties' in node ? (node.properties as Record<string, TSchema>) : {}
  return required.filter(name => {
    const schema = properties[name]
    return schema === undefined || (schema.default === undefined && !isTable(schema))
  })
}
