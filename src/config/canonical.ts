import { TypeGuard, type TSchema } from '@sinclair/typebox'
import { isTree, newTree, type Tree } from '../core/index.ts'
import { childSchema, kindOf, mayBeLone, mayBeSeconds, ownName } from './schema-walk.ts'
import { ConfigSchema } from './schema.ts'

/**
 * What one place says, in the one form that the schema has for it: keys by their own name, `ca = "file"` as a list of one, a whole
 * number of seconds as a duration. Whatever is none of that is left as it is, for validation to name.
 */
export function canonical(tree: Tree): Tree {
  return canonicalAt(ConfigSchema, tree) as Tree
}

function canonicalAt(schema: TSchema | undefined, value: unknown): unknown {
  if (schema === undefined) return value
  if (TypeGuard.IsArray(schema)) return canonicalList(schema, schema.items, value)
  if (mayBeSeconds(schema) && typeof value === 'number' && Number.isInteger(value) && value >= 0) return `${value}s`
  if (!isTree(value)) return value
  return newTree(
    Object.entries(value).map(([key, child]) => [
      nameIn(schema, key, value),
      canonicalAt(childSchema(schema, key), child),
    ]),
  )
}

function canonicalList(schema: TSchema, items: TSchema, value: unknown): unknown {
  if (Array.isArray(value)) return value.map(item => canonicalAt(items, item))
  if (typeof value !== 'string' || !mayBeLone(schema)) return value
  // As everywhere, '' stands for no file. The value of a header may be empty.
  return value === '' && kindOf(items) === 'pem' ? [] : [value]
}

/** The key's own name, unless the table has that one too: then the other is left, for validation to refuse. */
function nameIn(schema: TSchema, key: string, owner: Tree): string {
  const own = ownName(schema, key)
  return own === undefined || owner[own] !== undefined ? key : own
}
