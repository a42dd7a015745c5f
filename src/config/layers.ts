import fs from 'node:fs/promises'
import path from 'node:path'
import { TypeGuard, type TSchema } from '@sinclair/typebox'
import {
  ShoalError,
  systemCode,
  locateKeys,
  splitAssignment,
  formatPath,
  parsePath,
  parseTomlValue,
  treeOf,
  valueAt,
  type KeyPath,
  type Tree,
  parseTomlFile,
} from '../core/index.ts'
import { canonical } from './canonical.ts'
import type { Problem } from './problem.ts'
import { choicesOf, mayBeSeconds, schemaAt } from './schema-walk.ts'

/** One place that configuration comes from: the file, one variable, or one --set. Later layers win. */
export interface Layer {
  /** How problems name it, with the line when it has lines. */
  describe(path: KeyPath): string
  /** A key as the person who wrote this layer would write it. */
  spell(path: KeyPath): string
  /** What relative paths in it are relative to: a file's directory, or the working directory. */
  readonly baseDir: string
  /** In canonical form. */
  readonly tree: Tree
}

const ENV_PREFIX = 'SHOAL_'
/** Names the file; not a key. */
export const ENV_FILE = 'SHOAL_CONFIG'
/** Kubernetes sets these in every pod beside a Service called `shoal` or `shoal-...`; they are not meant for us. */
const SERVICE_LINK =
  /^SHOAL(?:_[A-Z0-9]+)*_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9]+)*|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_PROTO|_PORT|_ADDR)?)?)$/

/** Reads and parses a file. Undefined: it does not exist. Throws ERR_CONFIG_INVALID when it cannot be read or is not TOML. */
export async function readFileLayer(file: string): Promise<Layer | undefined> {
  let text: string
  try {
    text = await fs.readFile(file, 'utf8')
  } catch (error: unknown) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw new ShoalError('ERR_CONFIG_INVALID', `${file}: cannot be read: ${systemCode(error) ?? 'unknown error'}`, {
      cause: error,
      details: { file },
    })
  }
  const lineOf = locateKeys(text)
  return {
    describe: at => [file, lineOf(at)].filter(part => part !== undefined).join(':'),
    spell: formatPath,
    baseDir: path.dirname(path.resolve(file)),
    tree: canonical(parseTomlFile(file, text)),
  }
}

/** One layer for each SHOAL_ variable: `SHOAL_STORE__MAX_BYTES` is `store.max_bytes`. In the order of their names. */
export function envLayers(env: NodeJS.ProcessEnv, cwd: string): Layer[] {
  return Object.entries(env)
    .filter(([name]) => name.startsWith(ENV_PREFIX) && name !== ENV_FILE && !SERVICE_LINK.test(name))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, text = '']) => {
      const at = name.slice(ENV_PREFIX.length).toLowerCase().split('__')
      return { describe: () => name, spell: envName, baseDir: cwd, tree: readTree(at, text) }
    })
}

/** Names with dots and the like have no variable of their own, nor have items of lists; such keys are spelled as in the file. */
function envName(at: KeyPath): string {
  return at.every(key => typeof key === 'string' && /^[a-z0-9_]+$/.test(key))
    ? ENV_PREFIX + at.join('__').toUpperCase()
    : formatPath(at)
}

/** One layer for each `key=value`, and a problem for each that is none. */
export function setLayers(items: readonly string[], cwd: string): { layers: Layer[]; problems: Problem[] } {
  const layers: Layer[] = []
  const problems: Problem[] = []
  for (const item of items) {
    const [key = '', text = ''] = splitAssignment(item) ?? []
    const at = parsePath(key)
    if (at === undefined) problems.push({ path: [], message: '--set needs key=value, such as store.max_bytes=10GiB' })
    else {
      layers.push({ describe: () => '--set', spell: formatPath, baseDir: cwd, tree: readTree(at, text) })
    }
  }
  return { layers, problems }
}

function readTree(at: readonly string[], text: string): Tree {
  return canonical(treeOf(at, readValue(at, text)))
}

/**
 * Text from outside a file, as the key at `path` wants it: strings need no quotes, a list of one needs no brackets, all else is a TOML
 * value. What cannot be read stays text, so that validation names it.
 */
function readValue(at: KeyPath, text: string): unknown {
  const schema = schemaAt(at)
  if (schema === undefined) return text
  const value = parseTomlValue(text)
  if (TypeGuard.IsArray(schema)) {
    if (Array.isArray(value) || text.trimStart().startsWith('[')) return value ?? text
    return [isText(schema.items) ? textOf(value, text) : (value ?? text)]
  }
  if (!isText(schema)) return value ?? text
  return mayBeSeconds(schema) && typeof value === 'number' ? value : textOf(value, text)
}

/** Strings, and choices among strings. */
function isText(schema: TSchema): boolean {
  return TypeGuard.IsString(schema) || choicesOf(schema) !== undefined
}

/** A string with or without its quotes. */
function textOf(value: unknown, text: string): string {
  return typeof value === 'string' ? value : text
}

/** The last of `layers` that says something about `path`, or about a table around it. */
export function layerOf(layers: readonly Layer[], at: KeyPath): Layer | undefined {
  for (let length = at.length; length > 0; length -= 1) {
    const found = layers.findLast(layer => valueAt(layer.tree, at.slice(0, length)) !== undefined)
    if (found !== undefined) return found
  }
  return undefined
}
