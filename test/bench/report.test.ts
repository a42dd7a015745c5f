import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseOptions } from '../../bench/options.ts'
import { renderReport, type Results } from '../../bench/report.ts'
import { median } from '../../bench/statistics.ts'

const MACHINE = { cpu: 'a CPU', cores: 2, memoryBytes: 2 ** 34, kernel: 'Linux', node: 'v20', commit: 'abc' }
const NOTHING: Results = { machine: MACHINE, command: 'x', missing: [], warm: [], cold: [], idleRssBytes: undefined }

function warm(server: string, bytesPerSecond: number): Results['warm'][number] {
  return {
    server,
    workload: '64 KiB, 32 conn.',
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
  assert.throws(() => parseOptions(['--only', 'hot'], ''), /--only takes warm, cold, idle/)
  assert.throws(() => parseOptions(['--rounds', '0'], ''), /"0" is not a count/)
  assert.throws(() => parseOptions(['--unknown'], ''))
})
