import type { Clock, Digest, Logger } from '../core/index.ts'
import type { Admission } from './admission.ts'
import type { Batch } from './batch.ts'
import type { BlobEntry } from './blob-entry.ts'
import type { DiskHealth } from './disk-health.ts'
import { pickVictims, type Candidate, type Victim } from './eviction.ts'
import type { BlobRow, IndexDb } from './index-db.ts'
import type { StoreMetrics } from './metrics.ts'
import type { Tasks } from './tasks.ts'

export interface Freed {
  readonly blobs: number
  readonly bytes: number
}

export interface EvictorDeps {
  readonly index: IndexDb
  readonly batch: Batch
  readonly disk: DiskHealth
  readonly admission: Admission
  readonly metrics: StoreMetrics
  readonly tasks: Tasks
  readonly clock: Clock
  readonly log: Logger
  /** The blob, whether or not it is in memory yet. */
  readonly load: (digest: Digest) => BlobEntry | undefined
  /** The blob if it is in memory. */
  readonly peek: (digest: Digest) => BlobEntry | undefined
}

/** Blobs that leave in one turn of the event loop: each costs a few statements. */
const VICTIMS_PER_TURN = 8

/** After a run that could not free enough, pressure is ignored for so long. */
const FUTILE_PAUSE_MS = 1000

interface Choice extends Candidate {
  readonly row: BlobRow
}

/** Frees room, one run at a time. */
export class Evictor {
  readonly #deps: EvictorDeps
  #running: Promise<unknown> = Promise.resolve()
  #relieving = false
  /** More was asked for since the last run began. */
  #pressed = false
  #pausedUntil = Number.NEGATIVE_INFINITY

  constructor(deps: EvictorDeps) {
    this.#deps = deps
  }

  /** Evicts down to the soft limit in the background, unless that was futile a moment ago. */
  relieve(): void {
    if (this.#deps.clock.now() < this.#pausedUntil) return
    this.#pressed = true
    if (this.#relieving) return
    this.#relieving = true
    // Never rejects.
    void this.#deps.tasks.track(this.#relieve())
  }

  async #relieve(): Promise<void> {
    const { admission, clock, log } = this.#deps
    try {
      while (this.#pressed) {
        this.#pressed = false
        await this.evict(() => admission.softLimit)
        if (admission.used > admission.softLimit) this.#pausedUntil = clock.now() + FUTILE_PAUSE_MS
      }
    } catch (err: unknown) {
      log.error({ err }, 'eviction failed')
    } finally {
      this.#relieving = false
    }
  }

  /** Evicts until no more than `target()` bytes are used, or nothing more may go. */
  evict(target: () => number): Promise<Freed> {
    const run = this.#running.then(() => this.#run(target()))
    this.#running = run.catch(() => undefined)
    return this.#deps.tasks.track(run)
  }

  async #run(target: number): Promise<Freed> {
    const { admission, batch, log, metrics } = this.#deps
    // What waits to be deleted is on its way out already.
    const excess = (): number => admission.used - admission.pending - target
    const freed = { blobs: 0, bytes: 0 }
    const erasures: Promise<void>[] = []
    if (excess() <= 0) return freed
    await batch.flush()
    const victims = pickVictims(await this.#candidates(excess()), excess(), admission.softLimit)
    for (const [turn, victim] of victims.entries()) {
      if (turn > 0 && turn % VICTIMS_PER_TURN === 0) {
        await Promise.all(erasures.splice(0))
        await new Promise(setImmediate)
      }
      if (excess() <= 0) break
      const { blobs, bytes, erasure } = await this.#evict(victim)
      freed.blobs += blobs
      freed.bytes += bytes
      if (erasure !== undefined) erasures.push(erasure)
    }
    await Promise.all(erasures)
    metrics.evictedBytes.inc(freed.bytes)
    if (freed.bytes > 0) log.info({ ...freed, target }, 'evicted')
    return freed
  }

  /** What left; nothing if it may not go, or if it fails, which is no reason to spare the others. */
  async #evict({ candidate, bytes }: Victim<Choice>): Promise<Freed & { erasure: Promise<void> | undefined }> {
    const { digest } = candidate.row
    const nothing = { blobs: 0, bytes: 0, erasure: undefined }
    try {
      const blob = this.#deps.load(digest)
      if (blob === undefined || blob.inUse || this.#isPinned(digest)) return nothing
      if (bytes < candidate.presentBytes) return { ...nothing, bytes: await blob.trim(bytes), erasure: blob.erasure }
      return { blobs: 1, bytes: blob.depart({ abandon: false }), erasure: blob.erasure }
    } catch (err: unknown) {
      this.#deps.log.warn({ err, digest }, 'blob could not be evicted')
      return nothing
    }
  }

  /** Asked last, because a pin may have come since the candidates were read. */
  #isPinned(digest: Digest): boolean {
    const { disk, index } = this.#deps
    return disk.guard(() => index.find(digest)?.pinned ?? false, 'index read failed') ?? false
  }

  /** The coldest blobs: at least enough small ones to free `bytes`, or all there are. */
  async #candidates(bytes: number): Promise<Choice[]> {
    const { admission, disk, index, peek } = this.#deps
    const choices: Choice[] = []
    let rest = bytes
    for await (const rows of guarded(index.coldest(), disk)) {
      for (const row of rows) {
        const { accessed, pinned, presentBytes } = row
        const held = peek(row.digest)?.inUse ?? false
        choices.push({ row, accessed, pinned, presentBytes, held })
        if (!held && presentBytes <= admission.softLimit / 2) rest -= presentBytes
      }
      if (rest <= 0) break
    }
    return choices
  }
}

/** The pages until the index refuses one. */
async function* guarded<T>(pages: AsyncIterator<T>, disk: DiskHealth): AsyncGenerator<T> {
  for (;;) {
    let next: IteratorResult<T>
    try {
      next = await pages.next()
    } catch (error: unknown) {
      disk.trouble(error, 'index read failed')
      return
    }
    if (next.done === true) return
    yield next.value
  }
}
