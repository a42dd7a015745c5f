import fs from 'node:fs/promises'
import path from 'node:path'
import { describeError } from '../src/core/index.ts'
import { DockerRegistry } from '../test/support/docker-registry.ts'
import { findTool, packageOf, projectRoot, temporaryDirectory } from '../test/support/processes.ts'
import { makeBlobs, REPOSITORY } from './blobs.ts'
import { measureCold, startDistantOrigin, type ColdResult } from './cold.ts'
import { measureIdle } from './idle.ts'
import { describeMachine } from './machine.ts'
import { parseOptions, USAGE, type BenchOptions, type Part } from './options.ts'
import { renderReport, type Results } from './report.ts'
import { measureWarm, type WarmResult } from './warm.ts'

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
  const idle = parts.has('idle') ? await measureIdle({ signal }) : undefined
  if (parts.has('warm') || parts.has('cold')) {
    log('making blobs')
    const blobs = await makeBlobs(directory.path)
    await using registry = has('docker-registry') ? await DockerRegistry.start() : undefined
    for (const blob of blobs.all) await registry?.uploadBlob({ ...blob, repository: REPOSITORY })
    if (parts.has('cold')) {
      const coldOptions = { runs: options.coldRuns, log, signal }
      if (registry !== undefined) {
        const origin = { name: 'docker-registry', url: registry.url }
        cold.push(...(await measureCold(origin, blobs, coldOptions)))
      }
      await using distant = await startDistantOrigin(blobs)
      cold.push(...(await measureCold(distant, blobs, coldOptions)))
    }
    if (parts.has('warm') && has('wrk') && registry !== undefined) {
      const warmOptions = { rounds: options.warmRounds, seconds: options.seconds, withNginx: has('nginx'), log, signal }
      warm.push(...(await measureWarm(registry, blobs, warmOptions)))
    }
  }
  return {
    machine: await describeMachine(),
    command: options.command,
    missing: [...missing.values()],
    warm,
    cold,
    idleRssBytes: idle?.rssBytes,
  }
}

/** Tool to sentence, for what the wanted parts need and this machine has not. */
async function missingTools(parts: ReadonlySet<Part>): Promise<ReadonlyMap<string, string>> {
  const needs: Record<string, string> = {
    ...(parts.has('warm') ? { wrk: 'nothing warm', nginx: 'no comparison with nginx' } : {}),
    ...(parts.has('warm') || parts.has('cold') ? { 'docker-registry': 'nothing warm, nothing cold from it' } : {}),
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
