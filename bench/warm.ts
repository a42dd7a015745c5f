import { setTimeout as delay } from 'node:timers/promises'
import type { DockerRegistry } from '../test/support/docker-registry.ts'
import { blobPath, BLOBS_PATH, PREFIX, prefixedPath, REGISTRY, type BenchBlob, type BenchBlobs } from './blobs.ts'
import { startSlicingNginx } from './nginx.ts'
import { usageOf } from './process-usage.ts'
import { startMirror } from './shoal.ts'
import { Squid } from './squid.ts'
import { headerOf, timedGet } from './timed-get.ts'
import { runWrk, type LoadResult } from './wrk.ts'

const KIB = 1024
const WARM_UP_MS = 30_000
/** By then nothing that the filling left to be done, such as hashing whole blobs, is still going on. */
const SETTLE_MS = 3000

/**
 * How a client asks: a mirror, by a path of the registry API; a forward proxy, by the URL of a blob at its registry; nydusd's http-proxy
 * backend, by a blob's name below a prefix.
 */
export type Posture = 'mirror' | 'forward proxy' | 'http-proxy'

export interface Workload {
  readonly name: string
  readonly posture: Posture
  readonly blobs: readonly BenchBlob[]
  /** Bytes of one range; undefined: whole blobs. */
  readonly rangeBytes: number | undefined
  readonly connections: number
}

export interface Server {
  readonly name: string
  readonly url: string
  readonly pid: number
  /** Request targets for the postures in which it takes part. */
  readonly targets: Readonly<Partial<Record<Posture, (blob: BenchBlob) => string>>>
}

export interface WarmResult extends LoadResult {
  readonly server: string
  readonly workload: string
  readonly posture: Posture
  /** CPU time of the server, not of wrk. */
  readonly cpuSecondsPerGb: number
  readonly rssBytes: number
}

export interface WarmOptions {
  readonly rounds: number
  readonly seconds: number
  /** Servers that take part besides Shoal and docker-registry. */
  readonly withNginx: boolean
  readonly withSquid: boolean
  readonly log: (line: string) => void
  readonly signal: AbortSignal
}

/** What each server is asked, by 1 and by 32 connections; the large blob as a whole by one only. */
export function mirrorWorkloads(blobs: BenchBlobs): readonly Workload[] {
  const posture = 'mirror'
  const ranged = [blobs.large, ...blobs.small]
  return [
    ...both('4 KiB', { posture, blobs: ranged, rangeBytes: 4 * KIB }),
    ...both('64 KiB', { posture, blobs: ranged, rangeBytes: 64 * KIB }),
    ...both('1 MiB', { posture, blobs: ranged, rangeBytes: 1024 * KIB }),
    ...both('whole, 16 MiB', { posture, blobs: blobs.small, rangeBytes: undefined }),
    { name: 'whole, 256 MiB, 1 conn.', posture, blobs: [blobs.large], rangeBytes: undefined, connections: 1 },
  ]
}

/** The same ranges, asked for in the other ways. */
export function postureWorkloads(blobs: BenchBlobs): readonly Workload[] {
  const ranged = [blobs.large, ...blobs.small]
  return (['forward proxy', 'http-proxy'] as const).flatMap(posture => [
    ...both(`${posture}, 64 KiB`, { posture, blobs: ranged, rangeBytes: 64 * KIB }),
    ...both(`${posture}, 1 MiB`, { posture, blobs: ranged, rangeBytes: 1024 * KIB }),
  ])
}

function both(name: string, load: Omit<Workload, 'name' | 'connections'>): Workload[] {
  return [1, 32].map(connections => ({ ...load, connections, name: `${name}, ${connections} conn.` }))
}

/** Every workload against every server that knows its posture, in rounds, the servers in turns, each round beginning with another one. */
export async function measureWarm(
  registry: DockerRegistry,
  { blobs, workloads }: { readonly blobs: BenchBlobs; readonly workloads: readonly Workload[] },
  options: WarmOptions,
): Promise<readonly WarmResult[]> {
  await using shoal = await startMirror(registry.url)
  const alias = { prefix: PREFIX, path: BLOBS_PATH }
  await using nginx = options.withNginx ? await startSlicingNginx(registry.url, alias) : undefined
  await using squid = options.withSquid ? await Squid.start() : undefined
  const atRegistry = (blob: BenchBlob): string => registry.url + blobPath(blob)
  const servers: readonly Server[] = [
    {
      name: 'Shoal',
      url: shoal.mirror,
      pid: shoal.pid,
      targets: {
        mirror: blobPath,
        'forward proxy': blob => `http://${REGISTRY}${blobPath(blob)}`,
        'http-proxy': prefixedPath,
      },
    },
    ...(nginx === undefined
      ? []
      : [
          {
            name: 'nginx',
            url: nginx.url,
            pid: nginx.pid,
            // A reverse proxy takes the path of any URL for its own.
            targets: { mirror: blobPath, 'forward proxy': atRegistry, 'http-proxy': prefixedPath },
          },
        ]),
    ...(squid === undefined
      ? []
      : [{ name: 'squid', url: squid.url, pid: squid.pid, targets: { 'forward proxy': atRegistry } }]),
    { name: 'docker-registry', url: registry.url, pid: registry.pid, targets: { mirror: blobPath } },
  ]
  for (const server of servers) if (server.url !== registry.url) await warmUp(server, blobs.all)
  await delay(SETTLE_MS, undefined, { signal: options.signal })
  const results: WarmResult[] = []
  for (let round = 0; round < options.rounds; round += 1) {
    for (const workload of workloads) {
      const able = servers.filter(({ targets }) => targets[workload.posture] !== undefined)
      const turn = round % able.length
      for (const server of [...able.slice(turn), ...able.slice(0, turn)]) {
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
  const { blobs, connections, posture, rangeBytes } = workload
  const targets = blobs.map(blob => ({ target: targetOf(server, posture, blob), size: blob.size }))
  const before = await usageOf(server.pid)
  const result = await runWrk(server, { targets, rangeBytes, connections }, options)
  const after = await usageOf(server.pid)
  return {
    ...result,
    server: server.name,
    workload: workload.name,
    posture,
    cpuSecondsPerGb: (after.cpuSeconds - before.cpuSeconds) / (result.bytes / 1e9),
    rssBytes: after.rssBytes,
  }
}

function targetOf({ name, targets }: Server, posture: Posture, blob: BenchBlob): string {
  const target = targets[posture]
  if (target === undefined) throw new Error(`${name} takes no part as ${posture}`)
  return target(blob)
}

/** Fills a cache, and waits until it answers from there in every posture: the last bytes reach a client before they reach the disk. */
async function warmUp({ name, targets, url }: Server, blobs: readonly BenchBlob[]): Promise<void> {
  for (const targetFor of Object.values(targets)) {
    for (const blob of blobs) {
      const deadline = performance.now() + WARM_UP_MS
      // Squid says: HIT from <its name>.
      for (let cache = ''; !/^hit\b/i.test(cache);) {
        if (performance.now() > deadline) throw new Error(`${name} does not get warm: X-Cache: ${cache}`)
        const { head } = await timedGet(url, blob.size, { target: targetFor(blob) })
        cache = headerOf(head, 'x-cache') ?? ''
      }
    }
  }
}
