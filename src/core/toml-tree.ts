import { parse, TomlError } from 'smol-toml'
import { ShoalError } from './errors.ts'

/** A TOML table. Without a prototype, so that no key is special. */
export type Tree = Record<string, unknown>
/** Keys of tables, and indexes of lists. */
export type KeyPath = readonly (string | number)[]

export function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

export function newTree(entries: Iterable<readonly [string, unknown]> = []): Tree {
  const tree = Object.create(null) as Tree
  for (const [key, value] of entries) tree[key] = value
  return tree
}

/** `over` laid over `under`: tables are merged, anything else is replaced. */
export function mergeTrees(under: Tree, over: Tree): Tree {
  const merged = newTree(Object.entries(under))
  for (const [key, value] of Object.entries(over)) {
    const below = merged[key]
    merged[key] = isTree(value) ? mergeTrees(isTree(below) ? below : newTree(), value) : value
  }
  return merged
}

/** The tree that holds only `value`, at `path`. */
export function treeOf(path: readonly string[], value: unknown): Tree {
  const [key = '', ...rest] = path
  return newTree([[key, rest.length === 0 ? value : treeOf(rest, value)]])
}

/** Undefined: nothing is there. */
export function valueAt(tree: Tree, path: KeyPath): unknown {
  return path.reduce<unknown>((value, key) => {
    if (typeof key === 'number') return Array.isArray(value) ? (value[key] as unknown) : undefined
    return isTree(value) ? value[key] : undefined
  }, tree)
}

/** `tree` with `value` in place of what is at `path`, which is there. */
export function replaceAt(tree: Tree, path: KeyPath, value: unknown): Tree {
  const replaceIn = (node: unknown, [key, ...rest]: KeyPath): unknown => {
    if (key === undefined) return value
    if (Array.isArray(node))
      return node.map((item, index) => (index === key ? replaceIn(item, rest) : (item as unknown)))
    if (!isTree(node)) return node
    return newTree(Object.entries(node).map(([name, child]) => [name, name === key ? replaceIn(child, rest) : child]))
  }
  return replaceIn(tree, path) as Tree
}

/** `tree` without what is at `path`. A list that would lose an item, or a part of one, is left out as a whole. */
export function withoutPath(tree: Tree, path: KeyPath): Tree {
  const [key = '', ...rest] = path
  const below = tree[key]
  const others = Object.entries(tree).filter(([name]) => name !== key)
  if (rest.length === 0 || !isTree(below)) return newTree(others)
  return newTree([...others, [String(key), withoutPath(below, rest)]])
}

/** `registries."r.example".mirrors[0].host`: as TOML writes a dotted key, with the indexes of lists in brackets. */
export function formatPath(path: KeyPath): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`
    return text === '' ? formatKey(key) : `${text}.${formatKey(key)}`
  }, '')
}

export function formatKey(key: string): string {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : formatString(key)
}

/** A TOML basic string. JSON's escapes are TOML's too; JSON leaves DEL alone, TOML does not. */
export function formatString(text: string): string {
  return JSON.stringify(text).replaceAll('\x7f', '\\u007f')
}

/** The segments of a dotted key, quotes understood. Undefined when it is none. */
export function parsePath(text: string): readonly string[] | undefined {
  let value: unknown
  try {
    value = parse(`${text} = 0`)
  } catch {
    return undefined
  }
  const path: string[] = []
  while (isTree(value)) {
    const [only, ...others] = Object.keys(value)
    if (only === undefined || others.length > 0) return undefined
    path.push(only)
    value = value[only]
  }
  return value === 0 ? path : undefined
}

/** One TOML value on its own. Undefined when `text` is none. */
export function parseTomlValue(text: string): unknown {
  try {
    const document = parse(`value = ${text}`)
    return Object.keys(document).length === 1 ? document['value'] : undefined
  } catch {
    return undefined
  }
}

/**
 * The document in `file`. Throws ERR_CONFIG_INVALID with file, line and column, without the excerpt that the parser's own message carries:
 * the line may hold something that should not be in a log.
 */
export function parseTomlFile(file: string, text: string): Tree {
  try {
    return parse(text)
  } catch (error: unknown) {
    if (!(error instanceof TomlError)) throw error
    const what = error.message.split('\n', 1)[0]?.replace('Invalid TOML document: ', '') ?? 'not TOML'
    throw new ShoalError('ERR_CONFIG_INVALID', `${file}:${error.line}:${error.column}: ${what}`, {
      details: { file, line: error.line, column: error.column },
    })
  }
}
