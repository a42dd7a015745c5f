import fs from 'node:fs/promises'
import path from 'node:path'
import { describeError } from '../src/core/index.ts'
import { DockerRegistry } from '../test/support/docker-registry.ts'
import { findTool, packageOf, projectRoot, temporaryDirectory } from '../test/support/processes.ts'
import { makeBlobs, REPOSITORY } from './blobs.ts'
import { measureCold, startDistantOrigin, type ColdResult } from './cold.ts'
import { measureFailover, type FailoverRun } from './failover.ts'
import { measureIdle } from './idle.ts'
import { describeMachine } from './machine.ts'
import { parseOptions, USAGE, type BenchOptions, type Part } from './options.ts'
import { renderReport, type Results } from './report.ts'
import { describeSquid, type SquidDescription } from './squid.ts'
import { measureWarm, mirrorWorkloads, postureWorkloads, type WarmResult } from './warm.ts'

function log(line: string): void {
  process.stderr.write(`${line}\n`)
}

async function measure(options: BenchOptions, signal: AbortSignal): Promise<Results> {
  const { parts } = options
  const missing = await missingTools(parts)
  const has = (tool: string): boolean => !missing.has(tool)
  for (const line of missing.values()) log(line)
  await using directory = await temporaryDirectory('shoal-bench')
  const warm: WarmResult[] = []
  const cold: ColdResult[] = []
  const failover: FailoverRun[] = []
  let squid: SquidDescription | undefined
  const idle = parts.has('idle') ? await measureIdle({ signal }) : undefined
  if (parts.size > (parts.has('idle') ? 1 : 0)) {
    log('making blobs')
    const blobs = await makeBlobs(directory.path)
    if (parts.has('failover')) {
      failover.push(...(await measureFailover(blobs, { runs: options.failoverRuns, log, signal })))
    }
    const needsRegistry = parts.has('warm') || parts.has('postures') || parts.has('cold')
    await using registry = needsRegistry && has('docker-registry') ? await DockerRegistry.start() : undefined
    for (const blob of blobs.all) await registry?.uploadBlob({ ...blob, repository: REPOSITORY })
    if (parts.has('cold')) {
      const coldOptions = { runs: options.coldRuns, log, signal }
      if (registry !== undefined) {
        const origin = { name: 'docker-registry', url: registry.url }
        cold.push(...(await measureCold(origin, blobs, coldOptions)))
      }
      await using distant = await startDistantOrigin(blobs.all)
      cold.push(...(await measureCold(distant, blobs, coldOptions)))
    }
    const workloads = [
      ...(parts.has('warm') ? mirrorWorkloads(blobs) : []),
      ...(parts.has('postures') ? postureWorkloads(blobs) : []),
    ]
    if (workloads.length > 0 && has('wrk') && registry !== undefined) {
      const withSquid = parts.has('postures') && has('squid')
      if (withSquid) squid = await describeSquid()
      const { warmRounds: rounds, seconds } = options
      const warmOptions = { rounds, seconds, withNginx: has('nginx'), withSquid, log, signal }
      warm.push(...(await measureWarm(registry, { blobs, workloads }, warmOptions)))
    }
  }
  return {
    machine: await describeMachine(),
    command: options.command,
    missing: [...missing.values()],
    warm,
    cold,
    failover,
    squid,
    idleRssBytes: idle?.rssBytes,
  }
}

/** Tool to sentence, for what the wanted parts need and this machine has not. */
async function missingTools(parts: ReadonlySet<Part>): Promise<ReadonlyMap<string, string>> {
  const isWarm = parts.has('warm') || parts.has('postures')
  const needs: Record<string, string> = {
    ...(isWarm ? { wrk: 'nothing warm', nginx: 'no comparison with nginx' } : {}),
    ...(parts.has('postures') ? { squid: 'no comparison with squid' } : {}),
    ...(isWarm || parts.has('cold') ? { 'docker-registry': 'nothing warm, nothing cold from it' } : {}),
  }
  const missing = new Map<string, string>()
  for (const [tool, loss] of Object.entries(needs)) {
    if ((await findTool(tool)) !== undefined) continue
    missing.set(tool, `${tool} is missing (Debian package ${packageOf(tool)}): ${loss}.`)
  }
  return missing
}

async function main(argv: readonly string[]): Promise<number> {
  let options: BenchOptions
  try {
    options = parseOptions(argv, path.join(projectRoot, 'docs', 'benchmarks.md'))
  } catch (error: unknown) {
    log(`${describeError(error)}\n\n${USAGE}`)
    return 2
  }
  const interrupted = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => interrupted.abort())
  try {
    const report = renderReport(await measure(options, interrupted.signal))
    process.stdout.write(report)
    if (options.output !== undefined) await fs.writeFile(options.output, report)
    return 0
  } catch (error: unknown) {
    log(interrupted.signal.aborted ? 'interrupted' : describeError(error))
    return interrupted.signal.aborted ? 130 : 1
  }
}

process.exitCode = await main(process.argv.slice(2))
