import os from 'node:os'
import path from 'node:path'
import { projectRoot, run } from '../test/support/processes.ts'

const SCRIPT = path.join(projectRoot, 'bench', 'ranges.lua')

export interface Load {
  /** Blobs by the request targets, paths or absolute URLs, by which the server knows them. */
  readonly targets: readonly { readonly target: string; readonly size: number }[]
  /** Bytes of one range; undefined: whole blobs. */
  readonly rangeBytes: number | undefined
  readonly connections: number
}

export interface LoadResult {
  readonly requestsPerSecond: number
  /** Of the bodies. */
  readonly bytesPerSecond: number
  readonly bytes: number
  readonly p50Ms: number
  readonly p99Ms: number
}

interface WrkResult {
  readonly requests: number
  readonly bytes: number
  readonly micros: number
  readonly p50: number
  readonly p99: number
  readonly failed: number
}

/** wrk with one thread against one server. Throws when a single answer was an error or too short. */
export async function runWrk(
  server: { readonly name: string; readonly url: string },
  load: Load,
  options: { readonly seconds: number; readonly seed: number },
): Promise<LoadResult> {
  // On the last processor: left alone, the kernel at times puts client and server on the same one, and the figure is half of what it was.
  const { stdout } = await run(
    'taskset',
    [
      ...['--cpu-list', String(os.cpus().length - 1), 'wrk'],
      ...['--threads', '1', '--connections', String(load.connections)],
      ...['--duration', `${options.seconds}s`, '--timeout', '60s', '--latency', '--script', SCRIPT, server.url, '--'],
      String(load.rangeBytes ?? 0),
      String(options.seed),
      ...load.targets.map(({ target, size }) => `${target}=${size}`),
    ],
    { timeoutMs: (options.seconds + 120) * 1000 },
  )
  const result = JSON.parse(/^RESULT (.*)$/m.exec(stdout)?.[1] ?? 'null') as WrkResult | null
  if (result === null) throw new Error(`wrk said nothing of ${server.name}: ${stdout}`)
  const least = load.rangeBytes ?? Math.min(...load.targets.map(({ size }) => size))
  if (result.failed > 0) throw new Error(`${server.name} failed ${result.failed} of ${result.requests} requests`)
  if (result.requests === 0 || result.bytes < result.requests * least) {
    throw new Error(`${server.name} sent ${result.bytes} bytes in ${result.requests} answers of at least ${least}`)
  }
  // Headers are a tenth of a small answer and nothing of a whole blob, of which some are still on their way at the end.
  const bytes = load.rangeBytes === undefined ? result.bytes : result.requests * load.rangeBytes
  const seconds = result.micros / 1e6
  return {
    requestsPerSecond: result.requests / seconds,
    bytesPerSecond: bytes / seconds,
    bytes,
    p50Ms: result.p50 / 1000,
    p99Ms: result.p99 / 1000,
  }
}
