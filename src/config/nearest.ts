import type { TSchema } from '@sinclair/typebox'
import { formatPath, type KeyPath } from '../core/index.ts'
import { entrySchema, itemSchema, keysOf } from './schema-walk.ts'
import { ConfigSchema } from './schema.ts'

/** The known key that is closest to `path`, by edit distance over the whole dotted path. */
export function nearestKey(path: KeyPath): KeyPath {
  let best: KeyPath = []
  let least = Infinity
  for (const candidate of knownPaths(ConfigSchema, path, [])) {
    const distance = editDistance(formatPath(path), formatPath(candidate))
    if (distance < least) {
      least = distance
      best = candidate
    }
  }
  return best
}

/** Every key there is. Where names are free, and in lists, the name or index that `wanted` has at that place is taken. */
function* knownPaths(schema: TSchema, wanted: KeyPath, at: KeyPath): Generator<KeyPath> {
  const item = itemSchema(schema)
  if (item !== undefined) {
    const index = wanted[at.length]
    yield* knownPaths(item, wanted, [...at, typeof index === 'number' ? index : 0])
    return
  }
  const entry = entrySchema(schema)
  const children = entry === undefined ? keysOf(schema) : [[wanted[at.length] ?? '<name>', entry] as const]
  for (const [key, child] of children) {
    yield [...at, key]
    yield* knownPaths(child, wanted, [...at, key])
  }
}

/** Levenshtein: insertions, deletions and replacements that turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  let above = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let row = 1; row <= a.length; row += 1) {
    const line = [row]
    for (let column = 1; column <= b.length; column += 1) {
      const replaced = (above[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1)
      line.push(Math.min(replaced, (above[column] ?? 0) + 1, (line[column - 1] ?? 0) + 1))
    }
    above = line
  }
  return above[b.length] ?? 0
}
