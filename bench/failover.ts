import { metricOf } from '../test/support/shoal-command.ts'
import { blobPath, type BenchBlob, type BenchBlobs } from './blobs.ts'
import { startDistantOrigin, type Distance } from './cold.ts'
import { startMirror } from './shoal.ts'
import { timedGet } from './timed-get.ts'

const MIB = 1024 * 1024
/** Reads at the same time, each of other bytes of one blob: as many requests as Shoal has under way for it. */
export const READERS = 32
export const READ_BYTES = 2 * MIB
/** Of one of the reads that come before the clock starts. */
const WARM_UP_BYTES = 64 * 1024
/** One read in each chunk of the store, so that none brings the bytes of another. */
const STRIDE = 4 * MIB
/** Of the readers, in a run that counts. */
const LEAST_IN_FLIGHT = 0.9
const MAX_ATTEMPTS = 5
/** Mirror and registry are alike. So slow that a read takes a second, and that no processor is the bound. */
export const FAILOVER_DISTANCE: Distance = { name: 'distant', delayMs: 20, bytesPerSecond: 2e6 }

export type MirrorFate = 'alive' | 'killed' | 'hung'

export interface FailoverRun {
  readonly run: number
  readonly fate: MirrorFate
  /** Requests to the mirror that failed and went on at the registry. */
  readonly failovers: number
  /** How long the reads took that were under way when the mirror died, by reader. */
  readonly inFlightMs: readonly number[]
  /** And those that began when the last one of them had ended. */
  readonly afterwardsMs: readonly number[]
}

export interface FailoverOptions {
  readonly runs: number
  readonly log: (line: string) => void
  readonly signal: AbortSignal
}

/**
 * READERS cold reads through a fresh Shoal whose registry has one mirror; when each of them has got its first byte the mirror is killed
 * (SIGKILL), is made to hang (SIGSTOP), or lives on. Then as many more reads. The same reads each time, the fates in turns.
 */
export async function measureFailover(blobs: BenchBlobs, options: FailoverOptions): Promise<readonly FailoverRun[]> {
  await using registry = await startDistantOrigin(blobs.all, FAILOVER_DISTANCE)
  const results: FailoverRun[] = []
  for (let run = 0; run < options.runs; run += 1) {
    for (const fate of ['alive', 'killed', 'hung'] as const) {
      options.signal.throwIfAborted()
      const result = await measureOne(registry.url, blobs, { fate, run }, options)
      results.push(result)
      const longest = Math.max(...result.inFlightMs)
      options.log(`failover, mirror ${fate}: ${result.failovers} failovers, longest read ${longest.toFixed(0)} ms`)
    }
  }
  return results
}

/** On a busy machine the first reads may have ended before the last one has got its first byte: then the run is repeated. */
async function measureOne(
  registry: string,
  blobs: BenchBlobs,
  { fate, run }: Pick<FailoverRun, 'fate' | 'run'>,
  { log, signal }: Pick<FailoverOptions, 'log' | 'signal'>,
): Promise<FailoverRun> {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
    signal.throwIfAborted()
    const { failovers, ...times } = await attemptOne(registry, blobs, fate)
    if (fate === 'alive' && failovers > 0) throw new Error(`${failovers} requests failed at a mirror that was alive`)
    if (fate === 'alive' || failovers >= READERS * LEAST_IN_FLIGHT) return { run, fate, failovers, ...times }
    log(`failover, mirror ${fate}: only ${failovers} requests were in flight, once more`)
  }
  throw new Error(`the machine is too busy: in ${MAX_ATTEMPTS} attempts too few requests were in flight at the mirror`)
}

async function attemptOne(
  registry: string,
  { all, large, small }: BenchBlobs,
  fate: MirrorFate,
): Promise<Omit<FailoverRun, 'fate' | 'run'>> {
  await using mirror = await startDistantOrigin(all, FAILOVER_DISTANCE)
  await using shoal = await startMirror(registry, [mirror.url])
  for (const blob of small) await warmUp(shoal.mirror, blob)
  const read = async (place: number, onBody?: () => void): Promise<number> => {
    const range = { start: place * STRIDE, ...(onBody === undefined ? {} : { onBody }) }
    return (await timedGet(shoal.mirror + blobPath(large), READ_BYTES, range)).totalMs
  }
  const readers = Array.from({ length: READERS }, (_, reader) => reader)
  let begun = 0
  const inFlightMs = await Promise.all(
    readers.map(reader =>
      read(reader, () => {
        begun += 1
        if (begun === READERS && fate !== 'alive') mirror.kill(fate === 'killed' ? 'SIGKILL' : 'SIGSTOP')
      }),
    ),
  )
  const failovers = await metricOf(shoal, 'shoal_mirror_failovers_total')
  const afterwardsMs = await Promise.all(readers.map(reader => read(READERS + reader)))
  return { failovers, inFlightMs, afterwardsMs }
}

/** As many reads of another blob, so that none of those that are measured is the first of its kind: a daemon runs for days. */
async function warmUp(mirror: string, blob: BenchBlob): Promise<void> {
  const places = Array.from({ length: READERS }, (_, reader) => (reader * blob.size) / READERS)
  await Promise.all(places.map(start => timedGet(mirror + blobPath(blob), WARM_UP_BYTES, { start })))
}
