import { fileURLToPath } from 'node:url'
import { Child } from '../test/support/processes.ts'
import { blobPath, type BenchBlob, type BenchBlobs } from './blobs.ts'
import { startMirror } from './shoal.ts'
import { headerOf, timedGet } from './timed-get.ts'

export type ColdWay = 'direct' | 'Shoal'

export interface ColdResult {
  readonly origin: string
  readonly way: ColdWay
  readonly firstByteMs: number
  readonly totalMs: number
}

export interface ColdOptions {
  readonly runs: number
  readonly log: (line: string) => void
  readonly signal: AbortSignal
}

const DISTANT_ORIGIN = fileURLToPath(new URL('distant-origin.js', import.meta.url))

/** What a registry on another continent gives. */
export const DISTANT: Distance = { name: 'distant', delayMs: 20, bytesPerSecond: 40e6 }

/**
 * The large blob, directly from the origin and through a Shoal that has just started with an empty state, in turns. Before the clock starts
 * Shoal is asked for another, tiny blob and for one of 16 MiB, because that is how pulls go: the manifest, the config and other layers come
 * first, and a daemon runs for days.
 */
export async function measureCold(
  origin: { readonly name: string; readonly url: string },
  { large, small, tiny }: BenchBlobs,
  options: ColdOptions,
): Promise<readonly ColdResult[]> {
  // The origin's file is in the page cache from here on, for either way.
  await timedGet(origin.url + blobPath(large), large.size)
  const results: ColdResult[] = []
  for (let count = 0; count < options.runs; count += 1) {
    for (const way of ['direct', 'Shoal'] as const) {
      options.signal.throwIfAborted()
      const times = way === 'direct' ? await timedGet(origin.url + blobPath(large), large.size) : await throughShoal()
      results.push({ origin: origin.name, way, firstByteMs: times.firstByteMs, totalMs: times.totalMs })
      options.log(
        `cold, ${origin.name}, ${way}: first byte ${times.firstByteMs.toFixed(1)} ms, total ${times.totalMs.toFixed(0)} ms`,
      )
    }
  }
  return results

  async function throughShoal(): Promise<{ firstByteMs: number; totalMs: number }> {
    await using shoal = await startMirror(origin.url)
    for (const blob of [tiny, ...small.slice(0, 1)]) await timedGet(shoal.mirror + blobPath(blob), blob.size)
    const answer = await timedGet(shoal.mirror + blobPath(large), large.size)
    const cache = headerOf(answer.head, 'x-cache')
    if (cache !== 'miss') throw new Error(`a fresh Shoal said X-Cache: ${String(cache)}`)
    return answer
  }
}

export interface Distance {
  readonly name: string
  readonly delayMs: number
  /** On each connection. */
  readonly bytesPerSecond: number
}

export interface DistantOrigin extends AsyncDisposable {
  readonly name: string
  readonly url: string
  /** SIGKILL ends it, SIGSTOP makes it hang. Disposal ends it either way. */
  kill(signal: 'SIGKILL' | 'SIGSTOP'): void
}

/** A throttling origin, in its own process. */
export async function startDistantOrigin(
  blobs: readonly BenchBlob[],
  { name, delayMs, bytesPerSecond }: Distance = DISTANT,
): Promise<DistantOrigin> {
  const args = [DISTANT_ORIGIN, String(delayMs), String(bytesPerSecond), ...blobs.map(blob => blob.file)]
  const child = await Child.start(process.execPath, args)
  const port = await child.waitForLine(line => /^listening (\d+)$/.exec(line)?.[1])
  return {
    name,
    url: `http://127.0.0.1:${port}`,
    kill: signal => child.kill(signal),
    [Symbol.asyncDispose]: async () => {
      // One that hangs would not heed anything else.
      child.kill('SIGKILL')
      await child.stop()
    },
  }
}
