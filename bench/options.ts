import { parseArgs } from 'node:util'

export type Part = 'warm' | 'cold' | 'idle' | 'postures' | 'failover'

const PARTS: readonly Part[] = ['warm', 'cold', 'idle', 'postures', 'failover']

export const USAGE = `npm run bench:serve -- [--quick] [--only PART] [--rounds N] [--seconds N] [--output FILE]

  --quick        one short round of everything, to see that it works; the figures mean little
  --only PART    one part (may be given more than once):
                   warm      ranges from the cache, through the registry API, beside nginx and docker-registry
                   postures  the same as a forward proxy, beside squid, and below a prefix
                   cold      a blob that nobody has asked for before, beside the origin itself
                   failover  what a mirror that dies costs the requests under way there
                   idle      memory of a daemon that nobody asks anything
  --rounds N     rounds of the parts warm and postures (3), runs of each case of the parts cold and failover (5)
  --seconds N    how long wrk runs for one figure (4)
  --output FILE  where the report goes; default: docs/benchmarks.md after a full run, otherwise only to stdout`

export interface BenchOptions {
  readonly parts: ReadonlySet<Part>
  readonly warmRounds: number
  readonly coldRuns: number
  readonly failoverRuns: number
  readonly seconds: number
  /** Undefined: stdout only. */
  readonly output: string | undefined
  /** As it was called, for the report. */
  readonly command: string
}

/** Throws with one sentence for a person. */
export function parseOptions(argv: readonly string[], defaultOutput: string): BenchOptions {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string', multiple: true, default: [] },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      output: { type: 'string' },
    },
  })
  const only = values.only.map(parsePart)
  const whole = only.length === 0 && !values.quick
  return {
    parts: new Set(only.length === 0 ? PARTS : only),
    warmRounds: parseCount(values.rounds) ?? (values.quick ? 1 : 3),
    coldRuns: parseCount(values.rounds) ?? (values.quick ? 1 : 5),
    failoverRuns: parseCount(values.rounds) ?? (values.quick ? 1 : 5),
    seconds: parseCount(values.seconds) ?? (values.quick ? 1 : 4),
    output: values.output ?? (whole ? defaultOutput : undefined),
    command: ['npm run bench:serve', ...(argv.length === 0 ? [] : ['--', ...argv])].join(' '),
  }
}

function parsePart(text: string): Part {
  const part = PARTS.find(name => name === text)
  if (part === undefined) throw new Error(`--only takes ${PARTS.join(', ')}, not "${text}"`)
  return part
}

function parseCount(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new Error(`"${text}" is not a count`)
  return Number(text)
}
