import { setTimeout as delay } from 'node:timers/promises'
import type { DockerRegistry } from '../test/support/docker-registry.ts'
import { blobPath, type BenchBlob, type BenchBlobs } from './blobs.ts'
import { Nginx } from './nginx.ts'
import { usageOf } from './process-usage.ts'
import { startMirror } from './shoal.ts'
import { headerOf, timedGet } from './timed-get.ts'
import { runWrk, type Load, type LoadResult } from './wrk.ts'

const KIB = 1024
const WARM_UP_MS = 30_000
/** By then nothing that the filling left to be done, such as hashing whole blobs, is still going on. */
const SETTLE_MS = 3000

export interface Workload extends Load {
  readonly name: string
}

export interface Server {
  readonly name: string
  readonly url: string
  readonly pid: number
}

export interface WarmResult extends LoadResult {
  readonly server: string
  readonly workload: string
  /** CPU time of the server, not of wrk. */
  readonly cpuSecondsPerGb: number
  readonly rssBytes: number
}

export interface WarmOptions {
  readonly rounds: number
  readonly seconds: number
  readonly withNginx: boolean
  readonly log: (line: string) => void
  readonly signal: AbortSignal
}

/** What each server is asked, by 1 and by 32 connections; the large blob as a whole by one only. */
export function workloads(blobs: BenchBlobs): readonly Workload[] {
  const both = (name: string, load: Omit<Load, 'connections'>): Workload[] =>
    [1, 32].map(connections => ({ ...load, connections, name: `${name}, ${connections} conn.` }))
  const ranged = [blobs.large, ...blobs.small]
  return [
    ...both('4 KiB', { blobs: ranged, rangeBytes: 4 * KIB }),
    ...both('64 KiB', { blobs: ranged, rangeBytes: 64 * KIB }),
    ...both('1 MiB', { blobs: ranged, rangeBytes: 1024 * KIB }),
    ...both('whole, 16 MiB', { blobs: blobs.small, rangeBytes: undefined }),
    { name: 'whole, 256 MiB, 1 conn.', blobs: [blobs.large], rangeBytes: undefined, connections: 1 },
  ]
}

/** Every workload against every server, in rounds, the servers in turns, each round beginning with another one. */
export async function measureWarm(
  registry: DockerRegistry,
  blobs: BenchBlobs,
  options: WarmOptions,
): Promise<readonly WarmResult[]> {
  await using shoal = await startMirror(registry.url)
  await using nginx = options.withNginx ? await Nginx.start(registry.url) : undefined
  await warmUp('Shoal', shoal.mirror, blobs.all)
  if (nginx !== undefined) await warmUp('nginx', nginx.url, blobs.all)
  await delay(SETTLE_MS, undefined, { signal: options.signal })
  const servers: readonly Server[] = [
    { name: 'Shoal', url: shoal.mirror, pid: shoal.pid },
    ...(nginx === undefined ? [] : [{ name: 'nginx', url: nginx.url, pid: nginx.pid }]),
    { name: 'docker-registry', url: registry.url, pid: registry.pid },
  ]
  const results: WarmResult[] = []
  for (let round = 0; round < options.rounds; round += 1) {
    for (const workload of workloads(blobs)) {
      const turn = round % servers.length
      for (const server of [...servers.slice(turn), ...servers.slice(0, turn)]) {
        options.signal.throwIfAborted()
        const result = await measureOne(server, workload, { seconds: options.seconds, seed: round + 1 })
        results.push(result)
        const megabytes = Math.round(result.bytesPerSecond / 1e6)
        options.log(`round ${round + 1}, ${workload.name}, ${server.name}: ${megabytes} MB/s`)
      }
    }
  }
  return results
}

async function measureOne(
  server: Server,
  workload: Workload,
  options: { seconds: number; seed: number },
): Promise<WarmResult> {
  const before = await usageOf(server.pid)
  const result = await runWrk(server, workload, options)
  const after = await usageOf(server.pid)
  return {
    ...result,
    server: server.name,
    workload: workload.name,
    cpuSecondsPerGb: (after.cpuSeconds - before.cpuSeconds) / (result.bytes / 1e9),
    rssBytes: after.rssBytes,
  }
}

/** Fills a cache, and waits until it answers from there: the last bytes reach a client before they reach the disk. */
async function warmUp(name: string, url: string, blobs: readonly BenchBlob[]): Promise<void> {
  for (const blob of blobs) {
    const deadline = performance.now() + WARM_UP_MS
    for (let cache: string | undefined; cache?.toLowerCase() !== 'hit';) {
      if (performance.now() > deadline) throw new Error(`${name} does not get warm: X-Cache: ${String(cache)}`)
      const { head } = await timedGet(url + blobPath(blob), blob.size)
      cache = headerOf(head, 'x-cache')
    }
  }
}
