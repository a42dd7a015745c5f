import { parsePath, type KeyPath } from './toml-tree.ts'

/**
 * Where keys stand in a TOML text, which the parser does not tell: headers and the left sides of assignments, read line by line. Good
 * enough to point a person at a line; a key inside an inline table or list is found at the line where that begins.
 */
export function locateKeys(toml: string): (path: KeyPath) => number | undefined {
  const lines = new Map<string, number>()
  const lists = new Map<string, number>()
  let section: KeyPath = []
  for (const [index, line] of toml.split('\n').entries()) {
    const header = /^\s*(\[\[?)([^[].*?)(\]\]?)\s*(?:#.*)?$/.exec(line)
    if (header !== null) {
      const keys = parsePath(header[2] ?? '')
      if (keys === undefined || header[1]?.length !== header[3]?.length) continue
      section = header[1] === '[[' ? addItem(lists, keys) : currentItems(lists, keys)
      note(lines, section, index + 1)
      continue
    }
    const assignment = splitAssignment(line)
    const key = assignment === undefined ? undefined : parsePath(assignment[0])
    if (key !== undefined) note(lines, [...section, ...key], index + 1)
  }
  return path => {
    for (let length = path.length; length > 0; length -= 1) {
      const line = lines.get(JSON.stringify(path.slice(0, length)))
      if (line !== undefined) return line
    }
    return undefined
  }
}

/** `key = value` at the first `=` that is not inside quotes. Undefined when there is none. */
export function splitAssignment(text: string): [key: string, value: string] | undefined {
  const match = /^((?:"(?:[^"\\]|\\.)*"|'[^']*'|[^"'=#])+)=(.*)$/s.exec(text)
  return match === null ? undefined : [(match[1] ?? '').trim(), match[2] ?? '']
}

/** What a header's keys mean: a list of tables on the way stands for its last item so far. `lists`: how many items each list has. */
function currentItems(lists: ReadonlyMap<string, number>, keys: readonly string[]): KeyPath {
  return keys.reduce<KeyPath>((before, key) => {
    const path = [...before, key]
    const items = lists.get(JSON.stringify(path))
    return items === undefined ? path : [...path, items - 1]
  }, [])
}

/** The item that `[[keys]]` begins, counted in `lists`. */
function addItem(lists: Map<string, number>, keys: readonly string[]): KeyPath {
  const list = [...currentItems(lists, keys.slice(0, -1)), ...keys.slice(-1)]
  const items = lists.get(JSON.stringify(list)) ?? 0
  lists.set(JSON.stringify(list), items + 1)
  return [...list, items]
}

/** The first line wins: the parser has already refused anything that is there twice. Every table on the way counts as standing there too. */
function note(lines: Map<string, number>, path: KeyPath, line: number): void {
  for (let length = 1; length <= path.length; length += 1) {
    const key = JSON.stringify(path.slice(0, length))
    if (!lines.has(key)) lines.set(key, line)
  }
}
