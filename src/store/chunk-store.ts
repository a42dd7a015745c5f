import fs from 'node:fs/promises'
import type { Registry } from 'prom-client'
import { Limiter, ShoalError, type Clock, type Digest, type Logger } from '../core/index.ts'
import { Admission } from './admission.ts'
import { Batch } from './batch.ts'
import type { BlobContext, QuarantineEvent } from './blob-context.ts'
import { BlobTable } from './blob-table.ts'
import { BlockMemory } from './block-memory.ts'
import { Checkpointer } from './checkpointer.ts'
import { DiskHealth } from './disk-health.ts'
import { DiskThread } from './disk-thread.ts'
import { Evictor, type Freed } from './evictor.ts'
import { FILE_MODE } from './layout.ts'
import { Manifests } from './manifests.ts'
import { storeMetrics } from './metrics.ts'
import { Places } from './places.ts'
import { SourceNames } from './source-names.ts'
import { openStateDirectory, toStoreError, type StateDirectory, type WrapFiles } from './state-directory.ts'
import type { StoredBlob } from './stored-blob.ts'
import { Sweeper } from './sweeper.ts'
import { Tasks } from './tasks.ts'
import { verifyBlobs, type VerifyOptions, type VerifyReport } from './verify.ts'

export interface StoreDeps {
  readonly log: Logger
  readonly clock: Clock
  readonly metrics: Registry
  /** Wraps the data files; absent: they are used as they are. */
  readonly wrapFiles?: WrapFiles
}

export interface StoreOptions {
  readonly path: string
  /** Soft limit in bytes. 0: FIRST_SHARE of what is free at the first start, remembered. */
  readonly maxBytes: number
  /** Bytes of the disk that are left to others. */
  readonly minFreeBytes: number
  /** Bytes of recently written blocks kept in memory; below one block, none. */
  readonly memoryBytes: number
}

export interface BlobSummary {
  readonly digest: Digest
  readonly size: number
  readonly presentBytes: number
  readonly state: 'partial' | 'complete'
  /** Milliseconds since 1970. */
  readonly created: number
  readonly accessed: number
  readonly pinned: boolean
  readonly mediaType: string | undefined
}

export interface StoreStats {
  readonly blobs: number
  /** Present bytes of all blobs. */
  readonly bytes: number
  readonly maxBytes: number
  /** Of the disk, as last asked; absent: it cannot be asked. */
  readonly freeBytes?: number
  readonly pendingDeletionBytes: number
  readonly writable: boolean
}

const FIRST_SHARE = 0.8

/** How long close() waits for blobs that are being hashed or flushed. One that is not done is hashed again when it is next asked for. */
const PROOF_GRACE_MS = 2000

interface StoreParts {
  readonly state: StateDirectory
  readonly hasher: DiskThread
  readonly flusher: DiskThread
  readonly tasks: Tasks
  readonly maxBytes: number
}

/**
 * Blobs on this disk: sparse data files, indexed by SQLite, in 256 KiB blocks. One process per directory. Everything may be called
 * concurrently. A kill or a power cut loses cached work, never correctness. After close() every method throws ERR_CLOSED.
 */
export class ChunkStore implements AsyncDisposable {
  readonly path: string
  /** A UUID that names this node for as long as the state directory lives. */
  readonly id: string
  readonly places: Places
  readonly manifests: Manifests
  readonly #clock: Clock
  readonly #log: Logger
  readonly #parts: StoreParts
  readonly #context: BlobContext
  readonly #table: BlobTable
  readonly #evictor: Evictor
  readonly #sweeper: Sweeper
  readonly #listeners = new Set<(event: QuarantineEvent) => void>()
  #lastStamp = 0
  #open = true
  #sealed = false
  #closing: Promise<void> | undefined

  private constructor(deps: StoreDeps, options: StoreOptions, parts: StoreParts) {
    const { clock, log } = deps
    const { state, hasher, flusher, tasks, maxBytes } = parts
    const { files, index, layout } = state
    this.path = layout.root
    this.id = state.id
    this.#clock = clock
    this.#log = log
    this.#parts = parts
    const assertOpen = (): void => this.#assertOpen()
    const disk = new DiskHealth({
      log,
      clock,
      probe: () => this.#probe(),
      onCorruptIndex: () => fs.writeFile(layout.suspect, '', { mode: FILE_MODE }),
      onRecovery: () => this.#recovered(),
    })
    const batch = new Batch({ index, disk, clock })
    const admission = new Admission(
      { clock, freeBytes: () => files.freeBytes(), onPressure: () => this.#relieve() },
      { maxBytes, minFreeBytes: options.minFreeBytes },
    )
    admission.start(state.presentBytes)
    const metrics = storeMetrics(deps.metrics, () => this.#stats())
    state.scope.use(metrics)
    this.#context = {
      index,
      disk,
      batch,
      files,
      memory: new BlockMemory(options.memoryBytes),
      admission,
      hasher,
      flusher,
      sources: new SourceNames({ index, disk }),
      metrics,
      log,
      tasks,
      proofs: new Tasks(),
      hashing: new Limiter(1),
      flushing: new Limiter(1),
      isOpen: () => this.#open,
      isSealed: () => this.#sealed,
      stamp: () => this.#stamp(),
      assertOpen,
      departed: (ref, rowStays) => this.#table.forget(ref, rowStays),
      quarantined: event => this.#quarantined(event),
    }
    this.#table = new BlobTable({ context: this.#context, clock }, { count: state.blobs })
    this.#evictor = new Evictor({
      ...{ index, batch, disk, admission, metrics, tasks, clock, log },
      load: digest => this.#table.find(digest, { prove: false }),
      peek: digest => this.#table.peek(digest),
    })
    this.#sweeper = new Sweeper({ index, disk, files, tasks, log, isOpen: () => this.#open })
    this.places = new Places({ index, disk, batch, assertOpen })
    this.manifests = new Manifests({ index, disk, batch, assertOpen })
  }

  /**
   * Takes the directory, makes it if need be, and scrubs what the last run left open. A corrupt or newer index is kept aside under another
   * name. Throws ERR_STORE_LOCKED (details.pid) and ERR_STORE_IO.
   */
  static async open(deps: StoreDeps, options: StoreOptions): Promise<ChunkStore> {
    const log = deps.log.child({ room: 'store' })
    const { clock, wrapFiles = asTheyAre } = deps
    const tasks = new Tasks()
    const [hasher, flusher] = [new DiskThread(), new DiskThread()]
    const checkpointer: { current?: Checkpointer } = {}
    const onWrite = (pages: number): void => checkpointer.current?.wrote(pages)
    const state = await openStateDirectory({ log, clock, wrapFiles, onWrite }, options)
    try {
      checkpointer.current = new Checkpointer({ flusher, tasks, log }, { file: state.layout.index })
      const maxBytes = await limitOf(state, options.maxBytes)
      const store = new ChunkStore({ ...deps, log }, options, { state, hasher, flusher, tasks, maxBytes })
      await store.#context.admission.refresh()
      store.#sweeper.resume()
      log.info({ path: store.path, blobs: state.blobs, bytes: state.presentBytes, maxBytes }, 'store open')
      return store
    } catch (error: unknown) {
      await state.scope.close()
      throw toStoreError(error, options.path)
    }
  }

  /** False while the disk refuses writes (ENOSPC, EIO, EROFS ...). It is tried again every 30 seconds. */
  get writable(): boolean {
    return this.#open && this.#context.disk.writable
  }

  /** Undefined: unknown, or quarantined. Synchronous; at most one indexed SELECT. */
  find(digest: Digest): StoredBlob | undefined {
    this.#assertOpen()
    return this.#table.find(digest, { prove: true })
  }

  /**
   * The blob, with a new row if it has none. A row of another size is replaced while no block of it is present; after that throws
   * ERR_STORE_CORRUPT with details {known, offered}. More than MAX_BLOB_BYTES throw ERR_LIMIT_EXCEEDED. When the index takes no row, the blob is one that stores nothing.
   */
  ensure(digest: Digest, info: { size: number; mediaType?: string }): StoredBlob {
    this.#assertOpen()
    return this.#table.ensure(digest, info)
  }

  /** Tells of every blob that did not hash to its digest, after it has left. Returns what ends it. */
  onQuarantine(listener: (event: QuarantineEvent) => void): () => void {
    this.#assertOpen()
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Every blob, in the order they came. What changes meanwhile may or may not show. */
  list(): AsyncIterable<BlobSummary> {
    this.#assertOpen()
    return this.#list()
  }

  /**
   * Takes a blob out of the index at once, pinned or not. Resolves with the bytes that this frees, when they are freed, or at once if
   * somebody still reads them: then they go with the last reader. Undefined: unknown.
   */
  async remove(digest: Digest): Promise<number | undefined> {
    this.#assertOpen()
    const blob = this.#table.find(digest, { prove: false })
    if (blob === undefined) return undefined
    const bytes = blob.depart({ abandon: false })
    await blob.erasure
    return bytes
  }

  /** Pinned blobs are never evicted. False: unknown. Throws ERR_STORE_IO when the index refuses. */
  pin(digest: Digest, pinned: boolean): boolean {
    this.#assertOpen()
    const known = this.#context.disk.guard(() => this.#context.index.pin(digest, pinned))
    if (known !== undefined) return known
    throw new ShoalError('ERR_STORE_IO', `the index refused to ${pinned ? 'pin' : 'unpin'} ${digest}`)
  }

  /**
   * Evicts until at most `targetBytes` (default: the soft limit) are used or nothing more may go, and deletes files that no row knows.
   * Both count in what it returns, files as blobs.
   */
  async collect(targetBytes?: number): Promise<Freed> {
    this.#assertOpen()
    const { admission, tasks } = this.#context
    await admission.refresh()
    const evicted = await this.#evictor.evict(() => targetBytes ?? admission.softLimit)
    const swept = await tasks.track(this.#sweeper.sweep())
    return { blobs: evicted.blobs + swept.blobs, bytes: evicted.bytes + swept.bytes }
  }

  /** See VerifyOptions. Throws `signal.reason` when aborted, ERR_CLOSED when the store closes meanwhile. */
  async verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    this.#assertOpen()
    const find = (digest: Digest): ReturnType<BlobTable['find']> => {
      this.#assertOpen()
      return this.#table.find(digest, { prove: true })
    }
    const subjects: { digest: Digest; presentBytes: number }[] = []
    if (options.digests === undefined) {
      for await (const { digest, presentBytes } of this.#list()) subjects.push({ digest, presentBytes })
    } else {
      for (const digest of options.digests) {
        subjects.push({ digest, presentBytes: find(digest)?.presentBytes ?? 0 })
      }
    }
    return verifyBlobs({ subjects, find, log: this.#log }, options)
  }

  stats(): StoreStats {
    this.#assertOpen()
    return this.#stats()
  }

  /**
   * Refuses new work, waits for reads, writes and deletions, and for hashes and flushes a little; then writes what the batch holds and gives the
   * directory back. May be called again.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    this.#open = false
    const { batch, disk, index, proofs, tasks } = this.#context
    const { state, hasher, flusher } = this.#parts
    const enough = new AbortController()
    const patience = this.#clock.sleep(PROOF_GRACE_MS, { signal: enough.signal }).catch(() => undefined)
    await Promise.race([proofs.idle(), patience])
    enough.abort()
    await Promise.all([hasher.close(), flusher.close()])
    await tasks.idle()
    const sound = (await batch.close()) && disk.writable
    await disk.close()
    await tasks.idle()
    this.#sealed = true
    if (sound) disk.guard(() => index.clearOpen())
    else this.#log.warn({ rows: batch.rows }, 'store closes while the disk refuses writes')
    await state.scope.close()
  }

  #assertOpen(): void {
    if (!this.#open) throw new ShoalError('ERR_CLOSED', 'the store is closed')
  }

  #stamp(): number {
    this.#lastStamp = Math.max(this.#clock.now() * 1000, this.#lastStamp + 1)
    return this.#lastStamp
  }

  #stats(): StoreStats {
    const { admission, disk } = this.#context
    const { freeBytes } = admission
    return {
      blobs: this.#table.count,
      bytes: admission.present,
      maxBytes: this.#parts.maxBytes,
      ...(freeBytes === undefined ? {} : { freeBytes }),
      pendingDeletionBytes: admission.pending,
      writable: disk.writable,
    }
  }

  #relieve(): void {
    if (this.#open) this.#evictor.relieve()
  }

  #quarantined(event: QuarantineEvent): void {
    for (const listener of this.#listeners) {
      try {
        listener(event)
      } catch (err: unknown) {
        this.#log.error({ err, digest: event.digest }, 'quarantine listener failed')
      }
    }
  }

  async *#list(): AsyncGenerator<BlobSummary> {
    await this.#context.batch.flush()
    this.#assertOpen()
    for await (const rows of this.#context.index.blobs()) {
      for (const row of rows) {
        const { digest, size, presentBytes, created, pinned, mediaType } = row
        const accessed = Math.floor(row.accessed / 1000)
        // A blob is complete when it is proven, its row only when it has reached the disk.
        const state = this.#table.peek(digest)?.state === 'complete' ? 'complete' : row.state
        yield { digest, size, presentBytes, state, created, accessed, pinned, mediaType }
        this.#assertOpen()
      }
    }
    this.#assertOpen()
  }

  /** A disk that is full has room again once something is evicted, so that comes first. */
  async #probe(): Promise<void> {
    const { admission, files, index } = this.#context
    await admission.refresh()
    await this.#evictor.evict(() => admission.softLimit)
    await files.probe()
    index.setMeta('probed', this.#clock.now())
  }

  #recovered(): void {
    const { batch, tasks } = this.#context
    this.#table.catchUp()
    // Resolves with false when the index refuses again, which DiskHealth has heard of by then.
    void tasks.track(batch.flush())
  }
}

const asTheyAre: WrapFiles = files => files

/** The configured limit, or the one chosen at the first start. */
async function limitOf(state: StateDirectory, configured: number): Promise<number> {
  if (configured > 0) return configured
  const remembered = state.index.meta('max_bytes')
  if (remembered !== undefined) return remembered
  const free = await state.files.freeBytes()
  if (free === undefined) throw new ShoalError('ERR_STORE_IO', 'the free bytes of the disk are not known')
  const chosen = Math.floor((free + state.presentBytes) * FIRST_SHARE)
  state.index.setMeta('max_bytes', chosen)
  return chosen
}
