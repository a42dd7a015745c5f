import type { TSchema } from '@sinclair/typebox'
import { newTree } from '../core/index.ts'
import { formatDefault, formatValue, headerOf } from './print.ts'
import { annotation, belongsTo, choicesOf, entrySchema, itemSchema, keysOf } from './schema-walk.ts'
import { ConfigSchema } from './schema.ts'

/** Columns of a comment in config/shoal.toml, `# ` included. */
const COMMENT_WIDTH = 120
/** Before each line of an example. */
const MARK = '# '
const EXAMPLE = { isExample: true }
const EXAMPLE_ITEM = { isExample: true, isItem: true }

/** config/shoal.toml: every key with its default, and its description as a comment. Loading it is the same as loading nothing. */
export function annotatedConfig(): string {
  const head = [
    ...comment(
      'The configuration of shoal: every key, with its default. Generated from the schema in src/config/schema.ts.',
    ),
    ...comment('Looked for in this order: --config, $SHOAL_CONFIG, /etc/shoal/shoal.toml, none.'),
    ...comment('Durations ("5s", "300ms", "1m30s") and sizes ("4MiB", "50GiB") are strings with units.'),
    ...comment('SHOAL_STORE__MAX_BYTES=10GiB overrides store.max_bytes; --set store.max_bytes=10GiB overrides both.'),
    ...comment('Tables with free names, and lists of tables, have no default to show: examples take their place.'),
    '',
  ]
  const sections = keysOf(ConfigSchema).flatMap(([name, schema]) => annotateSection(name, schema))
  return `${[...head, ...sections].join('\n').trimEnd()}\n`
}

function annotateSection(name: string, schema: TSchema): string[] {
  const entry = entrySchema(schema)
  const described = comment(schema.description ?? '')
  if (entry === undefined) return [...described, ...annotateTable([name], keysOf(schema))]
  const typeSchema = keysOf(entry).find(([key]) => key === 'type')?.[1]
  const types = typeSchema === undefined ? undefined : choicesOf(typeSchema)
  if (types === undefined)
    return [...described, ...annotateTable([name, annotation(schema, 'x-example') ?? 'name'], keysOf(entry), EXAMPLE)]
  const examples = types.flatMap(type => annotateTable([name, `${type}-example`], keysOfType(entry, type), EXAMPLE))
  return [...described, ...comment(typeSchema?.description ?? ''), '', ...examples]
}

/** The keys that a table of this type has; the type itself as the example that it is, and described elsewhere. */
function keysOfType(schema: TSchema, type: string): [string, TSchema][] {
  const owner = newTree([['type', type]])
  return keysOf(schema)
    .filter(([, child]) => belongsTo(child, owner))
    .map(([key, child]) => [key, key === 'type' ? { ...child, 'x-sample': type, description: '' } : child])
}

/** A table, and after it what does not fit into it: its lists of tables, which are examples always, and its wide tables. */
function annotateTable(
  path: readonly string[],
  keys: readonly [string, TSchema][],
  { isExample = false, isItem = false } = {},
): string[] {
  const lines: string[] = []
  const below: string[] = []
  for (const [key, child] of keys) {
    const item = itemSchema(child)
    const line = assignment(key, child, isExample)
    if (item !== undefined)
      below.push(...comment(child.description ?? ''), ...annotateTable([...path, key], keysOf(item), EXAMPLE_ITEM))
    else if (keysOf(child).length > 0 && line.length > COMMENT_WIDTH)
      below.push(...comment(child.description ?? ''), ...annotateTable([...path, key], keysOf(child), { isExample }))
    else lines.push(...comment(child.description ?? ''), ...keysOf(child).flatMap(describePart), line)
  }
  return [`${isExample ? MARK : ''}${headerOf(path, isItem)}`, ...lines, '', ...below]
}

function assignment(key: string, schema: TSchema, isExample: boolean): string {
  const dynamic = annotation(schema, 'x-default')
  if (dynamic !== undefined) return `${MARK}${key} = ${dynamic}`
  const sample: unknown = isExample ? schema['x-sample'] : undefined
  return `${isExample ? MARK : ''}${key} = ${sample === undefined ? formatDefault(schema) : formatValue(sample)}`
}

function describePart([key, schema]: [string, TSchema]): string[] {
  return comment(`  ${key}: ${schema.description ?? ''}`)
}

function comment(text: string): string[] {
  if (text === '') return []
  const lines: string[] = []
  let line = '#'
  for (const word of text.split(/(?<=\S) /)) {
    if (line.length + 1 + word.length > COMMENT_WIDTH) {
      lines.push(line)
      line = '#'
    }
    line += ` ${word}`
  }
  return [...lines, line]
}
