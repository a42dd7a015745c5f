import { TypeGuard, type TSchema } from '@sinclair/typebox'
import { isTree, type KeyPath, type Tree } from '../core/index.ts'
import type { NameKind, ValueKind } from './schema-parts.ts'
import { ConfigSchema } from './schema.ts'

/** The schema of `key` inside a table or list of `schema`; another name for a key finds it too. Undefined: no such key. */
export function childSchema(schema: TSchema, key: string | number): TSchema | undefined {
  if (typeof key === 'number') return TypeGuard.IsArray(schema) ? schema.items : undefined
  if (!TypeGuard.IsObject(schema)) return entrySchema(schema)
  if (Object.hasOwn(schema.properties, key)) return schema.properties[key]
  const own = ownName(schema, key)
  return own === undefined ? undefined : schema.properties[own]
}

/** The name in the schema of a key that goes by another. Undefined: it is no such name. */
export function ownName(schema: TSchema, alias: string): string | undefined {
  return keysOf(schema).find(([, child]) => aliasesOf(child).includes(alias))?.[0]
}

/** With fixed keys or with free names. */
export function isTable(schema: TSchema): boolean {
  return TypeGuard.IsObject(schema) || TypeGuard.IsRecord(schema)
}

/** What every entry of a table with free names looks like. Undefined: `schema` is no such table. */
export function entrySchema(schema: TSchema): TSchema | undefined {
  return TypeGuard.IsRecord(schema) ? Object.values(schema.patternProperties)[0] : undefined
}

/** What every table of a list of tables looks like. Undefined: `schema` is no such list. */
export function itemSchema(schema: TSchema): TSchema | undefined {
  return TypeGuard.IsArray(schema) && TypeGuard.IsObject(schema.items) ? schema.items : undefined
}

/** The fixed keys of a table, in the order in which they are documented. */
export function keysOf(schema: TSchema): [string, TSchema][] {
  return TypeGuard.IsObject(schema) ? Object.entries(schema.properties) : []
}

export function schemaAt(path: KeyPath): TSchema | undefined {
  return path.reduce<TSchema | undefined>(
    (schema, key) => (schema === undefined ? undefined : childSchema(schema, key)),
    ConfigSchema,
  )
}

/** `value` and everything below it that has a schema, each with its own. */
export function* nodesOf(schema: TSchema, value: unknown, path: KeyPath): Generator<[KeyPath, TSchema, unknown]> {
  yield [path, schema, value]
  const children: readonly (readonly [string | number, unknown])[] = Array.isArray(value)
    ? [...value.entries()]
    : isTree(value)
      ? Object.entries(value)
      : []
  for (const [key, child] of children) {
    const below = childSchema(schema, key)
    if (below !== undefined) yield* nodesOf(below, child, [...path, key])
  }
}

/** Every string in a configuration, with its schema. */
export function* stringsOf(tree: Tree): Generator<[KeyPath, TSchema, string]> {
  for (const [path, schema, value] of nodesOf(ConfigSchema, tree, []))
    if (typeof value === 'string') yield [path, schema, value]
}

/** Whether a key belongs into `owner`, which has a type when keys depend on it. */
export function belongsTo(schema: TSchema, owner: Tree): boolean {
  const types = typesOf(schema)
  return types === undefined || types.some(type => type === owner['type'])
}

/** The types of tables that have this key. Undefined: all have it. */
export function typesOf(schema: TSchema): readonly string[] | undefined {
  return schema['x-types'] as readonly string[] | undefined
}

/** Other names for a key. */
export function aliasesOf(schema: TSchema): readonly string[] {
  return (schema['x-aliases'] as readonly string[] | undefined) ?? []
}

/** Whether a list may be given as its only item. */
export function mayBeLone(schema: TSchema): boolean {
  return schema['x-lone'] === true
}

/** Whether a duration may be given as a number of seconds. */
export function mayBeSeconds(schema: TSchema): boolean {
  return schema['x-seconds'] === true
}

/** One of our own annotations (`x-...`), when it is a string. */
export function annotation(schema: TSchema, name: 'x-default' | 'x-example'): string | undefined {
  const value: unknown = schema[name]
  return typeof value === 'string' ? value : undefined
}

export function kindOf(schema: TSchema): ValueKind | undefined {
  return schema['x-kind'] as ValueKind | undefined
}

/** What the names in a table with free names have to be; undefined where relations.ts looks at them. */
export function namesOf(schema: TSchema): NameKind | undefined {
  return schema['x-names'] as NameKind | undefined
}

/** The values of a choice. Undefined: it is none. */
export function choicesOf(schema: TSchema): readonly string[] | undefined {
  return TypeGuard.IsUnion(schema) ? schema.anyOf.map(choice => String(choice['const'])) : undefined
}
