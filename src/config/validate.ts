import { TypeGuard, type TSchema } from '@sinclair/typebox'
import { Value, ValueErrorType, ValuePointer, type ValueError } from '@sinclair/typebox/value'
import { normaliseRegistry, isTree, newTree, withoutPath, type KeyPath, type Tree } from '../core/index.ts'
import { parseListenAddress } from './address.ts'
import type { Problem } from './problem.ts'
import { childSchema, ConfigSchema, entrySchema, keysOf, kindOf, MAX_DURATION_MS, type RawConfig } from './schema.ts'
import { formatDuration, parseDuration, parseSize } from './units.ts'

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
  const report = (path: KeyPath, explainIt: () => string | undefined): void => {
    const key = JSON.stringify(path)
    const message = problems.has(key) ? undefined : explainIt()
    if (message !== undefined) problems.set(key, { path, message })
  }
  const filled = withDefaults(ConfigSchema, tree)
  for (const error of Value.Errors(ConfigSchema, filled)) {
    const path = [...ValuePointer.Format(error.path)]
    if (error.type === ValueErrorType.ObjectAdditionalProperties) unknown.push(path)
    else report(path, () => explain(error))
  }
  for (const [path, schema, value] of stringsOf(ConfigSchema, filled, [])) report(path, () => checkKind(schema, value))
  const bad = [...unknown, ...Array.from(problems.values(), problem => problem.path)]
  const pruned = bad.reduce((rest, path) => withoutPath(rest, entryOf(path)), tree)
  return { problems: [...problems.values()], unknown, valid: withDefaults(ConfigSchema, pruned) as RawConfig }
}

/** An entry of registries or origins is left out as a whole: half of one would only raise questions that nobody asked. */
function entryOf(path: KeyPath): KeyPath {
  return path[0] === 'registries' || path[0] === 'origins' ? path.slice(0, 2) : path
}

function withDefaults(schema: TSchema, value: unknown): unknown {
  if (!isTree(value)) return value
  const entry = entrySchema(schema)
  if (entry !== undefined)
    return newTree(Object.entries(value).map(([key, child]) => [key, withDefaults(entry, child)]))
  const filled = newTree(Object.entries(value))
  for (const [key, child] of keysOf(schema)) {
    const given = filled[key] ?? structuredClone(child.default as unknown)
    if (given !== undefined) filled[key] = withDefaults(child, given)
  }
  return filled
}

/** Every string below `value` with its schema. Items of a list have their index as the last key. */
export function* stringsOf(schema: TSchema, value: unknown, path: KeyPath): Generator<[KeyPath, TSchema, string]> {
  if (typeof value === 'string') yield [path, schema, value]
  else if (Array.isArray(value) && TypeGuard.IsArray(schema)) {
    for (const [index, item] of value.entries()) yield* stringsOf(schema.items, item, [...path, String(index)])
  } else if (isTree(value)) {
    for (const [key, item] of Object.entries(value)) {
      const child = childSchema(schema, key)
      if (child !== undefined) yield* stringsOf(child, item, [...path, key])
    }
  }
}

function explain({ type, schema, value }: ValueError): string {
  if (type === ValueErrorType.ObjectRequiredProperty) return 'is missing'
  if (type === ValueErrorType.ArrayMinItems) return 'must not be empty'
  if (type === ValueErrorType.StringMinLength) return 'must not be empty'
  return `${show(schema, value)} is not ${expected(schema)}`
}

/** What a key wants, to complete the sentence "x is not ...". */
function expected(schema: TSchema): string {
  const kind = kindOf(schema)
  if (kind === 'duration') return 'a duration such as "5s", "300ms" or "1m30s"'
  if (kind === 'size') return 'a size such as "4MiB", "50GiB" or "0"'
  if (kind === 'address') return 'an address such as "127.0.0.1:65001", "[::1]:65001" or "unix:/run/shoal/mirror.sock"'
  if (TypeGuard.IsUnion(schema))
    return `one of ${schema.anyOf.map(choice => JSON.stringify(choice['const'])).join(', ')}`
  if (TypeGuard.IsLiteral(schema)) return JSON.stringify(schema.const)
  if (TypeGuard.IsInteger(schema)) return `a whole number from ${schema.minimum ?? 0} to ${schema.maximum ?? Infinity}`
  if (TypeGuard.IsBoolean(schema)) return 'true or false'
  if (TypeGuard.IsArray(schema)) return 'a list'
  return TypeGuard.IsString(schema) ? 'a string' : 'a table'
}

/** A value for a message: short, and never one that may be a credential put in the wrong place. */
function show(schema: TSchema, value: unknown): string {
  if (Array.isArray(value)) return 'a list'
  if (isTree(value)) return 'a table'
  if (kindOf(schema) === undefined && TypeGuard.IsString(schema)) return `a ${typeof value}`
  if (kindOf(schema) === 'secret-path' || kindOf(schema) === 'url') return 'this'
  const text = value instanceof Date ? value.toISOString() : JSON.stringify(value)
  return text.length > 80 ? `${text.slice(0, 79)}…` : text
}

/** What a string must be beyond its pattern. Undefined: it is right. */
function checkKind(schema: TSchema, value: string): string | undefined {
  const kind = kindOf(schema)
  switch (kind) {
    case 'duration':
      return checkDuration(schema, value)
    case 'size':
      return parseSize(value) === undefined ? `${show(schema, value)} is not ${expected(schema)}` : undefined
    case 'address':
      return parseListenAddress(value) === undefined ? `${show(schema, value)} is not ${expected(schema)}` : undefined
    case 'registry-name':
      return normaliseRegistry(value) === undefined ? `${show(schema, value)} is not the name of a registry` : undefined
    case 'url':
      return checkUrl(value)
    case 'path':
    case 'secret-path':
    case undefined:
      return value.includes('\0') ? 'must not contain NUL' : undefined
  }
}

function checkDuration(schema: TSchema, value: string): string | undefined {
  const ms = parseDuration(value)
  if (ms === undefined) return `${show(schema, value)} is not ${expected(schema)}`
  if (ms > MAX_DURATION_MS) return `${show(schema, value)} is longer than ${formatDuration(24 * 86_400_000)}`
  return ms === 0 && schema['x-positive'] === true ? 'must be longer than 0' : undefined
}

function checkUrl(value: string): string | undefined {
  const url = tryUrl(value)
  if (url === undefined) return 'is not a URL such as "https://registry.example" or "http://10.0.0.5:5000"'
  if (url.username !== '' || url.password !== '') return 'must not hold credentials; use username and password_file'
  if (url.search !== '' || url.hash !== '') return 'must not have a query or a fragment'
  return undefined
}

function tryUrl(value: string): URL | undefined {
  if (!/^https?:\/\//i.test(value)) return undefined
  return URL.canParse(value) ? new URL(value) : undefined
}
