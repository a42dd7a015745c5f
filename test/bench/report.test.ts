import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseOptions } from '../../bench/options.ts'
import { renderReport, type Results } from '../../bench/report.ts'
import { median, percentile } from '../../bench/statistics.ts'

const MACHINE = { cpu: 'a CPU', cores: 2, memoryBytes: 2 ** 34, kernel: 'Linux', node: 'v20', commit: 'abc' }
const NOTHING: Results = {
  machine: MACHINE,
  command: 'x',
  missing: [],
  warm: [],
  cold: [],
  failover: [],
  squid: undefined,
  idleRssBytes: undefined,
}

function warm(
  server: string,
  bytesPerSecond: number,
  posture: Results['warm'][number]['posture'] = 'mirror',
): Results['warm'][number] {
  return {
    server,
    posture,
    workload: posture === 'mirror' ? '64 KiB, 32 conn.' : `${posture}, 64 KiB, 32 conn.`,
    requestsPerSecond: bytesPerSecond / 65_536,
    bytesPerSecond,
    bytes: bytesPerSecond,
    p50Ms: 1,
    p99Ms: 2,
    cpuSecondsPerGb: 0.5,
    rssBytes: 50e6,
  }
}

test('the median is the middle, or between the two in the middle', () => {
  assert.equal(median([3, 1, 2]), 2)
  assert.equal(median([4, 1, 3, 2]), 2.5)
  assert.ok(Number.isNaN(median([])))
})

test('a percentile is a value that so many do not exceed', () => {
  const values = Array.from({ length: 200 }, (_, index) => 200 - index)
  assert.equal(percentile(values, 0.99), 198)
  assert.equal(percentile([7], 0.99), 7)
  assert.ok(Number.isNaN(percentile([], 0.5)))
})

test('other postures have a section of their own, and each workload only the servers that took part', () => {
  const report = renderReport({
    ...NOTHING,
    warm: [
      ...[warm('Shoal', 90e6), warm('nginx', 100e6), warm('docker-registry', 10e6)],
      ...[
        warm('Shoal', 50e6, 'forward proxy'),
        warm('nginx', 100e6, 'forward proxy'),
        warm('squid', 20e6, 'forward proxy'),
      ],
    ],
    squid: { version: '5.7', configuration: ['cache_mem 1 GB'] },
  })
  const [before = '', after = ''] = report.split('## Postures')
  assert.match(before, /throughput against nginx \| at least 1 \| 0\.90 \|/)
  assert.match(before, /\| docker-registry \| .* \| 0\.10 \|/)
  assert.doesNotMatch(before, /squid/)
  assert.match(after, /squid 5\.7, one process, with:\n\n```\ncache_mem 1 GB\n```/)
  assert.match(after, /### forward proxy, 64 KiB, 32 conn\.\n\n(?:\|.*\n)+\| squid \| .* \| 0\.20 \|/)
  assert.doesNotMatch(after, /docker-registry \|/)
})

test('the cost of a failover is told read by read, against the same reads without it', () => {
  const run = (fate: 'alive' | 'killed' | 'hung', inFlightMs: number[], afterwardsMs: number[], failovers: number) => ({
    ...{ run: 0, fate, failovers, inFlightMs, afterwardsMs },
  })
  const report = renderReport({
    ...NOTHING,
    failover: [
      run('alive', [1000, 1100], [1000, 1000], 0),
      run('killed', [1030, 1120], [1001, 1002], 2),
      run('hung', [3000, 3200], [990, 1004], 2),
    ],
  })
  assert.match(report, /\| killed, in flight \| 2 \| 1050 \| 1075 \| 25 \| 30 \| 30 \|/)
  assert.match(report, /\| hung, in flight \| 2 \| 1050 \| 3100 \| 2050 \| 2100 \| 2100 \|/)
  assert.match(report, /\| hung, afterwards \| 2 \| 1000 \| 997 \| -3 \| 4 \| 4 \|/)
  assert.match(report, /2 \(2–2\) when it was killed, 2 \(2–2\) when it was hung/)
})

test('aims are said to be reached, or not reached, by the medians of the run', () => {
  const report = renderReport({
    ...NOTHING,
    warm: [warm('Shoal', 90e6), warm('Shoal', 80e6), warm('Shoal', 300e6), warm('nginx', 100e6)],
    cold: [
      { origin: 'distant', way: 'direct', firstByteMs: 20, totalMs: 6700 },
      { origin: 'distant', way: 'Shoal', firstByteMs: 21.5, totalMs: 1340 },
    ],
    idleRssBytes: 121e6,
  })
  assert.match(report, /64 KiB, 32 conn\., throughput against nginx \| at least 1 \| 0\.90 \| \*\*not reached\*\*/)
  assert.match(report, /cold total from distant against direct \| at most 0\.5 \| 0\.20 \| reached/)
  assert.match(report, /later than direct \| at most 2 ms \| 1\.5 ms \| reached/)
  assert.match(report, /idle RSS \| under 120 MB \| 121 MB \| \*\*not reached\*\*/)
  assert.match(report, /\| Shoal \| .* \| 90 \(80–300\) \| 0\.90 \|/)
})

test('what was not measured is named, and has no section', () => {
  const report = renderReport({ ...NOTHING, missing: ['wrk is missing'], warm: [warm('Shoal', 1e6)] })
  assert.match(report, /## Not measured\n\n- wrk is missing/)
  assert.match(report, /\| Shoal \| .* \| not measured \|/)
  assert.doesNotMatch(report, /## Cold|## Idle/)
})

test('only a full run writes the report into docs', () => {
  assert.equal(parseOptions([], 'docs/benchmarks.md').output, 'docs/benchmarks.md')
  assert.equal(parseOptions(['--quick'], 'docs/benchmarks.md').output, undefined)
  const cold = parseOptions(['--only', 'cold', '--rounds', '2', '--output', 'x.md'], 'docs/benchmarks.md')
  assert.deepEqual([...cold.parts], ['cold'])
  assert.equal(cold.coldRuns, 2)
  assert.equal(cold.output, 'x.md')
  assert.equal(cold.command, 'npm run bench:serve -- --only cold --rounds 2 --output x.md')
  assert.throws(() => parseOptions(['--only', 'hot'], ''), /--only takes warm, cold, idle, postures, failover/)
  assert.throws(() => parseOptions(['--rounds', '0'], ''), /"0" is not a count/)
  assert.throws(() => parseOptions(['--unknown'], ''))
})
