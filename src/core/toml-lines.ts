import { parsePath, type KeyPath } from './toml-tree.ts'

/**
 * Where keys stand in a TOML text, which the parser does not tell: headers and the left sides of assignments, read line by line. Good
 * enough to point a person at a line; a key inside an inline table is found at its table's line.
 */
export function locateKeys(toml: string): (path: KeyPath) => number | undefined {
  const lines = new Map<string, number>()
  let section: KeyPath = []
  for (const [index, line] of toml.split('\n').entries()) {
    const header = /^\s*\[([^[].*?)\]\s*(?:#.*)?$/.exec(line)?.[1]
    if (header !== undefined) {
      section = parsePath(header) ?? section
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

/** The first line wins: the parser has already refused anything that is there twice. Every table on the way counts as standing there too. */
function note(lines: Map<string, number>, path: KeyPath, line: number): void {
  for (let length = 1; length <= path.length; length += 1) {
    const key = JSON.stringify(path.slice(0, length))
    if (!lines.has(key)) lines.set(key, line)
  }
}
