import type { Clock } from '../core/index.ts'
import type { ChunkRow } from './block-map.ts'
import type { DiskHealth } from './disk-health.ts'
import type { BlobUpdate, IndexDb } from './index-db.ts'

/** Whichever comes first ends a batch. */
export const BATCH_ROWS = 64
export const BATCH_MS = 100

/** While the disk is off, "last used" of more blobs than this is not remembered. */
const MAX_IDLE_MEMBERS = 4096

/** A blob whose rows are written later. Asked for them at the last moment, so that many changes cost one row. */
export interface BatchMember {
  blobUpdate(): BlobUpdate
  chunkUpdate(chunk: number): { blobId: number; row: ChunkRow }
}

export interface BatchDeps {
  readonly index: IndexDb
  readonly disk: DiskHealth
  readonly clock: Clock
}

/**
 * Rows that wait to be written. One transaction takes at most BATCH_ROWS of them. While the disk is off they stay; a crash loses them,
 * which loses work and never correctness.
 */
export class Batch {
  readonly #deps: BatchDeps
  readonly #closing = new AbortController()
  /** Changed blobs, each with its changed chunks; in the order of their first change. */
  readonly #members = new Map<BatchMember, Set<number>>()
  #rows = 0
  #timer: Promise<void> | undefined

  constructor(deps: BatchDeps) {
    this.#deps = deps
  }

  get rows(): number {
    return this.#rows
  }

  /** The blob's row changed, and a chunk's too if one is named. */
  note(member: BatchMember, chunk?: number): void {
    let chunks = this.#members.get(member)
    if (chunks === undefined) {
      if (chunk === undefined && !this.#deps.disk.writable && this.#members.size >= MAX_IDLE_MEMBERS) return
      chunks = new Set()
      this.#members.set(member, chunks)
      this.#rows += 1
    }
    if (chunk !== undefined && !chunks.has(chunk)) {
      chunks.add(chunk)
      this.#rows += 1
    }
    if (!this.#deps.disk.writable) return
    if (this.#rows >= BATCH_ROWS) this.#step()
    else this.#timer ??= this.#later()
  }

  /** The blob has left the index: what waits for it must not be written. */
  forget(member: BatchMember): void {
    const chunks = this.#members.get(member)
    if (chunks === undefined) return
    this.#members.delete(member)
    this.#rows -= chunks.size + 1
  }

  /** Writes everything that waits, a transaction per turn of the event loop. False: the index refused; the rest still waits. */
  async flush(): Promise<boolean> {
    while (this.#rows > 0) {
      if (!this.#step()) return false
      await new Promise(resolve => setImmediate(resolve))
    }
    return true
  }

  /** Stops the timer and writes everything. False: the index refused. */
  async close(): Promise<boolean> {
    this.#closing.abort()
    await this.#timer
    return this.flush()
  }

  async #later(): Promise<void> {
    try {
      await this.#deps.clock.sleep(BATCH_MS, { signal: this.#closing.signal })
    } catch {
      // Only an abort gets here: the batch is closing and flushes itself.
      return
    } finally {
      this.#timer = undefined
    }
    if (this.#deps.disk.writable) this.#step()
    if (this.#rows > 0 && this.#deps.disk.writable) this.#timer = this.#later()
  }

  /** One transaction. The members it takes are forgotten only when it has succeeded. */
  #step(): boolean {
    const blobs: BlobUpdate[] = []
    const chunks: { member: BatchMember; chunk: number; update: { blobId: number; row: ChunkRow } }[] = []
    for (const [member, dirty] of this.#members) {
      for (const chunk of dirty) {
        if (chunks.length + blobs.length >= BATCH_ROWS - 1) break
        chunks.push({ member, chunk, update: member.chunkUpdate(chunk) })
      }
      blobs.push(member.blobUpdate())
      if (chunks.length + blobs.length >= BATCH_ROWS) break
    }
    if (blobs.length === 0) return true
    const rows = chunks.map(({ update }) => update)
    const committed = this.#deps.disk.guard(() => {
      this.#deps.index.commit(blobs, rows)
      return true
    })
    if (committed !== true) return false
    this.#settle(blobs.length, chunks)
    return true
  }

  #settle(blobs: number, chunks: readonly { member: BatchMember; chunk: number }[]): void {
    for (const { member, chunk } of chunks) {
      if (this.#members.get(member)?.delete(chunk) === true) this.#rows -= 1
    }
    let taken = 0
    for (const [member, dirty] of this.#members) {
      if (taken === blobs) return
      taken += 1
      // A blob whose chunks did not all fit comes again with the rest, its own row included.
      if (dirty.size > 0) continue
      this.#members.delete(member)
      this.#rows -= 1
    }
  }
}
