import { DISTANT, type ColdResult, type ColdWay } from './cold.ts'
import { FAILOVER_DISTANCE, READ_BYTES, READERS, type FailoverRun, type MirrorFate } from './failover.ts'
import type { Machine } from './machine.ts'
import type { SquidDescription } from './squid.ts'
import { extremes, median, medianOf, percentile } from './statistics.ts'
import type { WarmResult } from './warm.ts'

export interface Results {
  readonly machine: Machine
  readonly command: string
  /** What could not be measured here, one sentence each. */
  readonly missing: readonly string[]
  readonly warm: readonly WarmResult[]
  readonly cold: readonly ColdResult[]
  readonly failover: readonly FailoverRun[]
  /** Undefined: it took no part. */
  readonly squid: SquidDescription | undefined
  readonly idleRssBytes: number | undefined
}

interface Aim {
  readonly what: string
  readonly aim: string
  readonly measured: string
  readonly reached: boolean
}

/** docs/benchmarks.md. Parts without results are left out. */
export function renderReport(results: Results): string {
  const asMirror = results.warm.filter(({ posture }) => posture === 'mirror')
  const inOtherPostures = results.warm.filter(({ posture }) => posture !== 'mirror')
  const sections = [
    '# Benchmarks',
    'Written by the command below; do not edit. Figures of different machines, or of different runs, do not compare: what counts are the ratios within one run.',
    renderMachine(results),
    ...(results.missing.length === 0 ? [] : ['## Not measured', results.missing.map(line => `- ${line}`).join('\n')]),
    '## The aims',
    renderAims(aimsOf(results)),
    ...(asMirror.length === 0 ? [] : ['## Warm', WARM_PROSE, ...renderWarm(asMirror)]),
    ...(inOtherPostures.length === 0
      ? []
      : ['## Postures', POSTURES_PROSE, ...renderSquid(results.squid), ...renderWarm(inOtherPostures)]),
    ...(results.cold.length === 0 ? [] : ['## Cold', COLD_PROSE, renderCold(results.cold)]),
    ...(results.failover.length === 0 ? [] : ['## Failover', FAILOVER_PROSE, renderFailover(results.failover)]),
    ...(results.idleRssBytes === undefined
      ? []
      : [
          '## Idle',
          `Embedded defaults, an empty state, nobody asking: ${megabytes(results.idleRssBytes)} MB resident.`,
        ]),
  ]
  return `${sections.join('\n\n')}\n`
}

const WARM_PROSE = `Random aligned ranges over one blob of 256 MiB and four of 16 MiB, all in the cache and in the page cache, asked for by \`wrk\` with one thread on the last processor of
the same machine. \`nginx\`: one worker, \`proxy_cache\` with slices of 1 MiB, \`sendfile\`, \`open_file_cache\`, in front of docker-registry.
Medians over the rounds, in which the servers take turns; in parentheses the least and the most. "of nginx" is the throughput against nginx's.
RSS and CPU time are those of the server (for nginx of all its processes); 1 GB is 10^9 bytes.`

const POSTURES_PROSE = `The same ranges of the same blobs, asked for in other ways; servers, client and columns as under "Warm". As a forward proxy each server is asked for absolute
URLs: Shoal for those of the registry's name, squid and nginx, which takes the path of any URL for its own, for those of docker-registry's address. \`http-proxy\` is
what nydusd's backend of that name asks for: \`/<prefix>/<hex>\`, which nginx rewrites to the path of the blob.`

const FAILOVER_PROSE = `${READERS} readers, each of ${READ_BYTES / 1024 ** 2} MiB of its own of one blob, none of which is in the cache, through a Shoal whose registry has one mirror. Both answer ${FAILOVER_DISTANCE.delayMs} ms late and
send ${FAILOVER_DISTANCE.bytesPerSecond / 1e6} MB/s on each connection. When every reader has got its first byte, the mirror is killed (SIGKILL), is made to hang (SIGSTOP), or lives on. Once all have been
served, ${READERS} more readers come: the rows "afterwards". "Added" is how much longer a read took than the same read of the same run with a mirror that lives on.`

const COLD_PROSE = `One blob of 256 MiB over a new connection, directly from the origin and through a Shoal with an empty state, in turns; medians, in parentheses the
least and the most. Shoal has just started and has been asked for one blob of 4 KiB and one of 16 MiB before, as a pull asks for the config and other
layers first.
"${DISTANT.name}" is an origin that answers ${DISTANT.delayMs} ms late and sends ${DISTANT.bytesPerSecond / 1e6} MB/s on each connection. Client, Shoal and origin share the machine's cores.`

function renderMachine({ machine, command }: Results): string {
  return table(
    ['', ''],
    [
      ['CPU', `${machine.cpu}, ${machine.cores} cores`],
      ['memory', `${(machine.memoryBytes / 1024 ** 3).toFixed(1)} GiB`],
      ['kernel', machine.kernel],
      ['Node', machine.node],
      ['commit', machine.commit],
      ['command', `\`${command}\``],
    ],
  )
}

function renderAims(aims: readonly Aim[]): string {
  const rows = aims.map(aim => [aim.what, aim.aim, aim.measured, aim.reached ? 'reached' : '**not reached**'])
  return rows.length === 0 ? 'None of the figures with an aim was measured.' : table(['', 'aim', 'measured', ''], rows)
}

function aimsOf(results: Results): readonly Aim[] {
  const aims: Aim[] = []
  for (const workload of ['64 KiB, 1 conn.', '64 KiB, 32 conn.', '1 MiB, 1 conn.', '1 MiB, 32 conn.']) {
    const ratio = throughput(results.warm, 'Shoal', workload) / throughput(results.warm, 'nginx', workload)
    if (Number.isNaN(ratio)) continue
    const what = `warm ranges of ${workload}, throughput against nginx`
    aims.push({ what, aim: 'at least 1', measured: ratio.toFixed(2), reached: ratio >= 1 })
  }
  for (const origin of namesOf(results.cold, result => result.origin)) {
    const of = (way: ColdWay, field: (result: ColdResult) => number): number =>
      medianOf(
        results.cold.filter(result => result.origin === origin && result.way === way),
        field,
      )
    const ratio = of('Shoal', total) / of('direct', total)
    const most = origin === DISTANT.name ? 0.5 : 1.05
    const later = of('Shoal', firstByte) - of('direct', firstByte)
    aims.push(
      {
        what: `cold total from ${origin} against direct`,
        aim: `at most ${most}`,
        measured: ratio.toFixed(2),
        reached: ratio <= most,
      },
      {
        what: `cold first byte from ${origin}, later than direct`,
        aim: 'at most 2 ms',
        measured: `${later.toFixed(1)} ms`,
        reached: later <= 2,
      },
    )
  }
  if (results.idleRssBytes !== undefined) {
    const measured = `${megabytes(results.idleRssBytes)} MB`
    aims.push({ what: 'idle RSS', aim: 'under 120 MB', measured, reached: results.idleRssBytes < 120e6 })
  }
  return aims
}

function renderWarm(results: readonly WarmResult[]): string[] {
  return namesOf(results, result => result.workload).flatMap(workload => {
    const ofWorkload = results.filter(result => result.workload === workload)
    const rows = namesOf(ofWorkload, result => result.server).map(server => {
      const own = ofWorkload.filter(result => result.server === server)
      return [
        server,
        spread(own, result => result.requestsPerSecond, 0),
        spread(own, result => result.bytesPerSecond / 1e6, 0),
        ratioText(throughput(results, server, workload) / throughput(results, 'nginx', workload)),
        medianOf(own, result => result.p50Ms).toFixed(2),
        medianOf(own, result => result.p99Ms).toFixed(2),
        medianOf(own, result => result.cpuSecondsPerGb).toFixed(2),
        megabytes(medianOf(own, result => result.rssBytes)),
      ]
    })
    const head = ['', 'requests/s', 'MB/s', 'of nginx', 'p50 ms', 'p99 ms', 'CPU s/GB', 'RSS MB']
    return [`### ${workload}`, table(head, rows)]
  })
}

function renderCold(results: readonly ColdResult[]): string {
  const rows = namesOf(results, result => result.origin).flatMap(origin =>
    namesOf(results, result => result.way).map(way => {
      const own = results.filter(result => result.origin === origin && result.way === way)
      return [origin, way, spread(own, firstByte, 1), spread(own, total, 0)]
    }),
  )
  return table(['origin', '', 'first byte ms', 'total ms'], rows)
}

function renderSquid(squid: SquidDescription | undefined): string[] {
  if (squid === undefined) return []
  return [`squid ${squid.version}, one process, with:`, ['```', ...squid.configuration, '```'].join('\n')]
}

function renderFailover(runs: readonly FailoverRun[]): string {
  const phases = [
    { name: 'in flight', of: (run: FailoverRun): readonly number[] => run.inFlightMs },
    { name: 'afterwards', of: (run: FailoverRun): readonly number[] => run.afterwardsMs },
  ]
  const rows = phases.flatMap(({ name, of }) => {
    const timesOf = (fate: MirrorFate): number[] => runs.filter(run => run.fate === fate).flatMap(of)
    const alive = timesOf('alive')
    return (['killed', 'hung'] as const).map(fate => {
      const times = timesOf(fate)
      const added = times.map((ms, index) => ms - (alive[index] ?? NaN))
      return [
        `${fate}, ${name}`,
        String(times.length),
        median(alive).toFixed(0),
        median(times).toFixed(0),
        ...[median(added), percentile(added, 0.99), Math.max(...added)].map(ms => ms.toFixed(0)),
      ]
    })
  })
  const head = ['', 'reads', 'ms without failure', 'ms', 'added ms, median', 'p99', 'most']
  const moved = (['killed', 'hung'] as const).map(fate => {
    const own = runs.filter(run => run.fate === fate)
    return `${spread(own, run => run.failovers, 0)} when it was ${fate}`
  })
  return `${table(head, rows)}\n\nRequests under way at the mirror that went on at the registry, for each run: ${moved.join(', ')}.`
}

function firstByte(result: ColdResult): number {
  return result.firstByteMs
}

function total(result: ColdResult): number {
  return result.totalMs
}

function throughput(results: readonly WarmResult[], server: string, workload: string): number {
  return medianOf(
    results.filter(result => result.server === server && result.workload === workload),
    result => result.bytesPerSecond,
  )
}

function spread<T>(records: readonly T[], field: (record: T) => number, digits: number): string {
  const { least, most } = extremes(records.map(field))
  return `${medianOf(records, field).toFixed(digits)} (${least.toFixed(digits)}–${most.toFixed(digits)})`
}

function ratioText(ratio: number): string {
  return Number.isNaN(ratio) ? 'not measured' : ratio.toFixed(2)
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0)
}

/** In order of first appearance. */
function namesOf<T, N extends string>(records: readonly T[], name: (record: T) => N): N[] {
  return [...new Set(records.map(name))]
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, head.map((_, column) => (column === 0 ? '---' : '---:')), ...rows]
  return lines.map(cells => `| ${cells.join(' | ')} |`).join('\n')
}
