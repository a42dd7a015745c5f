import { TypeGuard, type TSchema } from '@sinclair/typebox'
import { Value, ValueErrorType, ValuePointer, type ValueError } from '@sinclair/typebox/value'
import { formatKey, isTree, newTree, withoutPath, type KeyPath, type Tree } from '../core/index.ts'
import { expectedOf, isHidden, judge, judgeName } from './kinds.ts'
import type { Problem } from './problem.ts'
import {
  belongsTo,
  choicesOf,
  entrySchema,
  isTable,
  itemSchema,
  keysOf,
  kindOf,
  mayBeLone,
  mayBeSeconds,
  namesOf,
  nodesOf,
  schemaAt,
  typesOf,
} from './schema-walk.ts'
import { ConfigSchema, type RawConfig } from './schema.ts'

export interface Validation {
  readonly problems: readonly Problem[]
  readonly unknown: readonly KeyPath[]
  /** The tree with its defaults. Whatever has a problem is left out, so that the rest can be looked at further. */
  readonly valid: RawConfig
}

/** Everything that is wrong with single keys of `tree`. What keys mean together is the business of relations.ts. */
export function validate(tree: Tree): Validation {
  const unknown: KeyPath[] = []
  const problems = new Map<string, Problem>()
  const report = (path: KeyPath, messageOf: () => string): void => {
    const key = JSON.stringify(path)
    if (!problems.has(key)) problems.set(key, { path, message: messageOf() })
  }
  const filled = withDefaults(ConfigSchema, tree)
  for (const error of Value.Errors(ConfigSchema, filled)) {
    const path = toKeyPath(filled, [...ValuePointer.Format(error.path)])
    if (error.type === ValueErrorType.ObjectAdditionalProperties) unknown.push(path)
    else report(path, () => explain(error, path))
  }
  for (const [path, schema, value] of nodesOf(ConfigSchema, filled, []))
    for (const problem of checkNode(path, schema, value)) report(problem.path, () => problem.message)
  const bad = [...unknown, ...Array.from(problems.values(), problem => problem.path)]
  const pruned = bad.reduce((rest, path) => withoutPath(rest, entryOf(path)), tree)
  return { problems: [...problems.values()], unknown, valid: withDefaults(ConfigSchema, pruned) as RawConfig }
}

/** An entry of registries or origins is left out as a whole: half of one would only raise questions that nobody asked. */
function entryOf(path: KeyPath): KeyPath {
  return path[0] === 'registries' || path[0] === 'origins' ? path.slice(0, 2) : path
}

function withDefaults(schema: TSchema, value: unknown): unknown {
  if (Array.isArray(value) && TypeGuard.IsArray(schema)) return value.map(item => withDefaults(schema.items, item))
  if (!isTree(value)) return value
  const entry = entrySchema(schema)
  if (entry !== undefined)
    return newTree(Object.entries(value).map(([key, child]) => [key, withDefaults(entry, child)]))
  const filled = newTree(Object.entries(value))
  for (const [key, child] of keysOf(schema)) {
    const given = filled[key] ?? (belongsTo(child, value) ? structuredClone(child.default as unknown) : undefined)
    if (given !== undefined) filled[key] = withDefaults(child, given)
  }
  return filled
}

/** A JSON pointer does not tell the index of a list from a key. */
function toKeyPath(root: unknown, segments: readonly string[]): KeyPath {
  let value = root
  return segments.map(segment => {
    const key = Array.isArray(value) ? Number(segment) : segment
    value = isTree(value) ? value[segment] : Array.isArray(value) ? (value[Number(segment)] as unknown) : undefined
    return key
  })
}

function explain({ type, schema, value }: ValueError, path: KeyPath): string {
  if (type === ValueErrorType.ObjectRequiredProperty) return 'is missing'
  if (type === ValueErrorType.ArrayMinItems) return 'must not be empty'
  if (type === ValueErrorType.StringMinLength) return 'must not be empty'
  const parent = schemaAt(path.slice(0, -1))
  const split = isTree(value) && parent !== undefined && namesOf(parent) !== undefined
  return refusal(schema, value) + (split ? '; names with dots are quoted' : '')
}

function refusal(schema: TSchema, value: unknown): string {
  const sentence = `is not ${expected(schema)}`
  return hides(schema) && !isTree(value) && !Array.isArray(value) ? sentence : `${show(schema, value)} ${sentence}`
}

/** To complete the sentence "x is not ...". */
function expected(schema: TSchema): string {
  const choices = choicesOf(schema)
  if (choices !== undefined) return `one of ${choices.map(choice => JSON.stringify(choice)).join(', ')}`
  if (TypeGuard.IsInteger(schema)) return `a whole number from ${schema.minimum ?? 0} to ${schema.maximum ?? Infinity}`
  if (TypeGuard.IsBoolean(schema)) return 'true or false'
  if (TypeGuard.IsArray(schema)) return mayBeLone(schema) ? 'a string or a list of strings' : 'a list'
  if (!TypeGuard.IsString(schema)) return 'a table'
  return mayBeSeconds(schema) ? `${expectedOf('duration')}, or a whole number of seconds` : expectedOf(kindOf(schema))
}

/** A value for a message: short, and without what may be a URL with a credential where a table was wanted. */
function show(schema: TSchema, value: unknown): string {
  if (Array.isArray(value)) return 'a list'
  if (isTree(value)) return 'a table'
  const isText = TypeGuard.IsString(schema) && kindOf(schema) === undefined
  if (isText || isTable(schema) || itemSchema(schema) !== undefined) return `a ${typeof value}`
  const text = value instanceof Date ? value.toISOString() : JSON.stringify(value)
  return text.length > 80 ? `${text.slice(0, 79)}…` : text
}

/** Whether a value is kept out of messages: it may be a credential put in the wrong place. */
function hides(schema: TSchema): boolean {
  return TypeGuard.IsArray(schema) ? hides(schema.items) : isHidden(kindOf(schema))
}

function* checkNode(path: KeyPath, schema: TSchema, value: unknown): Generator<Problem> {
  if (typeof value === 'string') {
    const verdict = judge(kindOf(schema), value, schema)
    if (verdict === false) yield { path, message: refusal(schema, value) }
    else if (verdict !== true) yield { path, message: verdict }
  } else if (isTree(value)) {
    yield* checkNames(path, schema, value)
    yield* checkTypes(path, schema, value)
  }
}

/** The names in a table with free names; they are the same in upper and lower case. */
function* checkNames(path: KeyPath, schema: TSchema, table: Tree): Generator<Problem> {
  const kind = namesOf(schema)
  if (kind === undefined) return
  const seen = new Map<string, string>()
  for (const name of Object.keys(table)) {
    const other = seen.get(name.toLowerCase())
    const message = judgeName(kind, name) ?? (other === undefined ? undefined : `is the same as ${formatKey(other)}`)
    if (message !== undefined) yield { path: [...path, name], message }
    seen.set(name.toLowerCase(), name)
  }
}

/** In a table with a type, the keys that depend on it. */
function* checkTypes(path: KeyPath, schema: TSchema, table: Tree): Generator<Problem> {
  const type = table['type']
  const typeSchema = keysOf(schema).find(([key]) => key === 'type')?.[1]
  if (typeSchema === undefined || typeof type !== 'string' || choicesOf(typeSchema)?.includes(type) !== true) return
  for (const [key, child] of keysOf(schema)) {
    const types = typesOf(child)
    if (types === undefined) continue
    const here = belongsTo(child, table)
    if (!here && table[key] !== undefined)
      yield { path: [...path, key], message: `is not a key of the type "${type}", but of ${quoted(types)}` }
    if (here && table[key] === undefined) yield { path: [...path, key], message: 'is missing' }
  }
}

function quoted(words: readonly string[]): string {
  return words.map(word => JSON.stringify(word)).join(', ')
}
