import { humanBytes } from '../../src/cli/progress.ts'
import { formatTable, type Column } from '../../src/cli/table.ts'
import type { Pull } from './pull.ts'

const COLUMNS: readonly Column[] = [
  { title: 'pull' },
  { title: 'what' },
  { title: 'bytes', align: 'right' },
  { title: 'first byte', align: 'right' },
  { title: 'time', align: 'right' },
  { title: 'MB/s', align: 'right' },
  { title: 'from' },
  { title: 'Server-Timing' },
]

/** The X-Cache header in words. */
const FROM: Readonly<Record<string, string>> = { hit: 'store', miss: 'origin', partial: 'store and origin' }

/** A table of several pulls by name, each with its sum. */
export function renderPulls(pulls: ReadonlyMap<string, Pull>): string {
  const rows = [...pulls].flatMap(([name, { pulled, elapsedMs }], index) => {
    const bytes = pulled.reduce((sum, thing) => sum + thing.bytes, 0)
    return [
      ...(index === 0 ? [] : [[]]),
      ...pulled.map(thing => [
        name,
        thing.what,
        humanBytes(thing.bytes),
        `${thing.firstByteMs.toFixed(1)} ms`,
        ...speed(thing.bytes, thing.totalMs),
        FROM[thing.cache ?? ''] ?? '',
        thing.timing ?? '',
      ]),
      [name, 'everything', humanBytes(bytes), '', ...speed(bytes, elapsedMs)],
    ]
  })
  return formatTable(COLUMNS, rows)
}

/** Below this the time is that of asking, and a rate says nothing. */
const RATE_FROM_BYTES = 1e6

function speed(bytes: number, elapsedMs: number): [time: string, rate: string] {
  return [`${elapsedMs.toFixed(0)} ms`, bytes < RATE_FROM_BYTES ? '' : (bytes / 1000 / elapsedMs).toFixed(0)]
}
