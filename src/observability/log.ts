import { destination as fileDestination, pino, type DestinationStream } from 'pino'
import type { Logger } from '../core/index.ts'
import { sanitiseFields } from './sanitise.ts'

type Severity = 'debug' | 'info' | 'warn' | 'error'

/** From which severity on lines are written. Nothing reaches the last. */
const LEVELS: ReadonlyMap<string, number> = new Map([
  ['debug', 20],
  ['info', 30],
  ['warn', 40],
  ['error', 50],
  ['silent', Infinity],
])

export interface LoggerOptions {
  /** debug, info, warn, error or silent. */
  readonly level: string
  /** Where the lines go. Default: stderr. */
  readonly destination?: DestinationStream & { flushSync?: () => void }
}

export interface RootLogger extends Logger {
  /** May be set at any time, and then holds for every child as well. A level that does not exist throws a RangeError. */
  level: string
  /** Writes what is still buffered, synchronously. To be called before the process exits. */
  flush(): void
}

/** JSON lines. Every field goes through sanitiseFields(), so that no credential is written whatever a room passes on. */
export function openLogger(options: LoggerOptions): RootLogger {
  const target = options.destination ?? fileDestination({ fd: 2, sync: false })
  const threshold: Threshold = { level: options.level, severity: severityOf(options.level) }
  const root = pino(
    {
      level: 'debug',
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: label => ({ level: label }) },
      // sanitiseFields() has made plain objects of errors already.
      serializers: { err: (plain: unknown) => plain },
    },
    target,
  )
  return {
    ...wrap(root, threshold),
    get level() {
      return threshold.level
    },
    set level(level) {
      threshold.severity = severityOf(level)
      threshold.level = level
    },
    flush: () => target.flushSync?.(),
  }
}

interface Threshold {
  level: string
  severity: number
}

function severityOf(level: string): number {
  const severity = LEVELS.get(level)
  if (severity === undefined) throw new RangeError(`there is no log level "${level}"`)
  return severity
}

/** pino's children keep the level they were born with; ours all ask the one threshold. */
function wrap(target: pino.Logger, threshold: Threshold): Logger {
  const write = (name: Severity): ((fields: object, event: string) => void) => {
    const severity = severityOf(name)
    return (fields, event) => {
      if (severity >= threshold.severity) target[name](sanitiseFields(fields), event)
    }
  }
  return {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: fields => wrap(target.child(sanitiseFields(fields)), threshold),
  }
}
