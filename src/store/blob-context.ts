import type { Digest, Limiter, Logger } from '../core/index.ts'
import type { Admission } from './admission.ts'
import type { Batch } from './batch.ts'
import type { BlockMemory } from './block-memory.ts'
import type { DataFiles } from './data-files.ts'
import type { DiskHealth } from './disk-health.ts'
import type { DiskThread } from './disk-thread.ts'
import type { IndexDb } from './index-db.ts'
import type { FileRef } from './layout.ts'
import type { StoreMetrics } from './metrics.ts'
import type { SourceNames } from './source-names.ts'
import type { Tasks } from './tasks.ts'

/** A blob's bytes did not hash to its digest. `sources`: where its blocks came from, as far as that is known. */
export interface QuarantineEvent {
  readonly digest: Digest
  readonly sources: readonly string[]
}

/** What every blob of a store shares. */
export interface BlobContext {
  readonly index: IndexDb
  readonly disk: DiskHealth
  readonly batch: Batch
  readonly files: DataFiles
  readonly memory: BlockMemory
  readonly admission: Admission
  /** Hashes. */
  readonly hasher: DiskThread
  /** Waits for the disk; apart from the hashes, because many of those are waited for. */
  readonly flusher: DiskThread
  readonly sources: SourceNames
  readonly metrics: StoreMetrics
  readonly log: Logger
  /** Reads, writes and deletions under way. */
  readonly tasks: Tasks
  /** Whole-blob hashes and flushes under way or waiting; kept apart, because closing may give up on them. */
  readonly proofs: Tasks
  /** One hash at a time, so that at most one descriptor waits for it. */
  readonly hashing: Limiter
  /** One flush at a time, likewise. */
  readonly flushing: Limiter
  /** False once the store closes: what takes long shall stop. */
  readonly isOpen: () => boolean
  /** Closing has waited for everything: what is left over is for the next start. */
  readonly isSealed: () => boolean
  /** Microseconds since 1970, never the same twice. */
  readonly stamp: () => number
  /** Throws ERR_CLOSED. */
  readonly assertOpen: () => void
  /** The blob has left. `rowStays`: the index refused, so its row must be overlooked. */
  readonly departed: (ref: FileRef, rowStays: boolean) => void
  readonly quarantined: (event: QuarantineEvent) => void
}
