import type { BlockRun, Digest } from '../core/index.ts'

/** Room in the store for a fill. Disposing gives back what was not written; more than once does nothing. */
export type Reservation = Disposable & {
  /** What was granted. */
  readonly bytes: number
}

/**
 * One blob in the store. There is one object per blob at any time, whoever asks for it. Once the blob was evicted, removed or quarantined
 * its object is dead for good: nothing is present, nothing can be written; ask the store anew. A blob that was removed while held stays
 * readable for its holders. After the store has closed, every method throws ERR_CLOSED.
 */
export interface StoredBlob {
  readonly digest: Digest
  /** Bytes. */
  readonly size: number
  readonly mediaType: string | undefined
  /** Live. `complete`: every block is here, and together they were proven to hash to the digest. */
  readonly state: 'partial' | 'complete' | 'quarantined'
  /** Keeps the blob from being evicted until released; also touches it. Releasing twice does nothing. */
  hold(): Disposable
  /** Notes that the blob was used, for eviction's order. Written in batches. */
  touch(): void
  has(block: number): boolean
  /** Merged runs of absent blocks inside `run`. */
  missing(run: BlockRun): BlockRun[]
  /**
   * Fills all of `target` from `position` and returns true if every block of it is here, was checked in this run, and lies in the page
   * cache. Otherwise false, and `target` may hold anything. Synchronous; never waits for the disk.
   */
  readNow(target: Uint8Array, position: number): boolean
  /**
   * Whether sendNow() may be used for the range: every block of it is here, was checked in this run, and was wholly in the page cache a
   * few seconds ago at most. Synchronous; never waits for the disk.
   */
  canSendNow(position: number, length: number): boolean
  /**
   * Sends bytes from the page cache straight to a socket's descriptor (sendfile). Returns how many it took, which may be none. To be called
   * right after canSendNow() said yes; what the page cache lost in between is waited for.
   */
  sendNow(socket: number, position: number, length: number): number
  /**
   * The bytes, in a buffer of the caller's own; blocks not yet checked in this run are checked against their crc32 first. A block that
   * fails, is short or that the disk does not deliver becomes missing. Undefined: not all of the range is here now, so that has() is false
   * for at least one of its blocks; take it from a source. Throws ERR_STORE_IO when all of it is here and cannot be read now (no descriptor
   * or memory is to be had, or other blocks go bad all the time), which may pass; RangeError outside the blob, `signal.reason` when aborted.
   */
  read(position: number, length: number, options?: { signal?: AbortSignal }): Promise<Uint8Array | undefined>
  /**
   * Stores one whole block, given in pieces that nobody changes any more. True: it can be read from the store now (also if it was there
   * already). False: it was not stored (full, disk off, blob gone). Throws RangeError when the pieces are not exactly the block's
   * length; never for trouble with the disk. Room is taken from the blob's reservations, or asked for if there is none.
   */
  write(block: number, pieces: readonly Uint8Array[], source: string): Promise<boolean>
  /** Room for a fill of this blob. Undefined: the hard limit is reached or the disk is off; do not store. */
  reserve(bytes: number): Reservation | undefined
  /**
   * `partial` at once if blocks are missing. Otherwise resolves when the digest has been proven or disproven; `partial` even then if the
   * proof could not be made (a bad block was found, the store closes).
   */
  settled(options?: { signal?: AbortSignal }): Promise<'complete' | 'quarantined' | 'partial'>
}
