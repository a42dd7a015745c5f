import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { MAX_BLOB_BYTES, digestAlgorithm, digestHex, ShoalError, type Clock, type Digest } from '../core/index.ts'
import type { BlobContext } from './blob-context.ts'
import { BlobEntry } from './blob-entry.ts'
import { BlockMap } from './block-map.ts'
import type { FileRef } from './layout.ts'

/** Memory for the maps of blobs that nobody uses just now: 16 MiB know about 600 GiB of blobs. */
const IDLE_MAP_BYTES = 16 * 1024 * 1024
/** What an entry takes besides its map, roughly. */
const ENTRY_BYTES = 2048

/** No row has this id. */
const DETACHED_ID = -1

/**
 * The one object per blob. Recently used ones are kept; others live as long as somebody refers to them, and are found again while they
 * do, so that two objects never disagree about one blob.
 */
export class BlobTable {
  readonly #context: BlobContext
  readonly #clock: Clock
  readonly #recent = new LRUCache<Digest, BlobEntry>({
    maxSize: IDLE_MAP_BYTES,
    sizeCalculation: blob => BlockMap.bytesFor(blob.size) + ENTRY_BYTES,
  })
  readonly #known = new Map<Digest, WeakRef<BlobEntry>>()
  readonly #collected = new FinalizationRegistry<Digest>(digest => {
    if (this.#known.get(digest)?.deref() === undefined) this.#known.delete(digest)
  })
  /** Blobs that have left although the index refused to say so. */
  readonly #overlooked = new Map<number, FileRef>()
  #count: number

  constructor(deps: { context: BlobContext; clock: Clock }, options: { count: number }) {
    this.#context = deps.context
    this.#clock = deps.clock
    this.#count = options.count
  }

  get count(): number {
    return this.#count
  }

  /** At most one SELECT. A blob found all present and unproven starts to be proven when `prove` says so. */
  find(digest: Digest, options: { prove: boolean }): BlobEntry | undefined {
    const recent = this.#recent.get(digest)
    if (recent !== undefined) return recent
    const known = this.peek(digest)
    if (known !== undefined) {
      this.#recent.set(digest, known)
      return known
    }
    const { disk, index } = this.#context
    const read = disk.guard(() => ({ row: index.find(digest) }), 'index read failed')
    if (read?.row === undefined || this.#overlooked.has(read.row.id)) return undefined
    const blob = this.#adopt(new BlobEntry(this.#context, { facts: read.row, marked: false }))
    if (options.prove) blob.prove()
    return blob
  }

  /** The blob if it is in memory. */
  peek(digest: Digest): BlobEntry | undefined {
    return this.#known.get(digest)?.deref()
  }

  /** See ChunkStore.ensure(). */
  ensure(digest: Digest, info: { size: number; mediaType?: string }): BlobEntry {
    const { size, mediaType } = info
    if (!Number.isSafeInteger(size) || size < 0) throw new RangeError(`${size} is not a size`)
    if (size > MAX_BLOB_BYTES)
      throw new ShoalError('ERR_LIMIT_EXCEEDED', `a blob of ${size} bytes is larger than the store takes`, {
        details: { digest, size, limit: MAX_BLOB_BYTES },
      })
    const known = this.find(digest, { prove: true })
    if (known === undefined) return this.#create(digest, size, mediaType)
    if (known.size === size) {
      if (mediaType !== undefined) known.adoptMediaType(mediaType)
      return known
    }
    if (known.presentBytes > 0 || known.state === 'complete')
      throw new ShoalError('ERR_STORE_CORRUPT', `${digest} has ${known.size} bytes, not ${size}`, {
        details: { known: known.size, offered: size },
      })
    known.depart({ abandon: true })
    return this.#create(digest, size, mediaType)
  }

  /** The blob has left the index, or should have. */
  forget(ref: FileRef, rowStays: boolean): void {
    if (this.peek(ref.digest)?.ref.id === ref.id) this.#known.delete(ref.digest)
    if (this.#recent.peek(ref.digest)?.ref.id === ref.id) this.#recent.delete(ref.digest)
    if (rowStays) this.#overlooked.set(ref.id, ref)
    this.#count -= 1
  }

  /** The index takes rows again: tells it what it refused. */
  catchUp(): void {
    const { disk, index } = this.#context
    for (const [id, ref] of this.#overlooked) {
      const done = disk.guard(() => {
        index.doom(ref)
        return true
      })
      if (done !== true) return
      this.#overlooked.delete(id)
    }
  }

  #create(digest: Digest, size: number, mediaType: string | undefined): BlobEntry {
    const { disk, index, stamp } = this.#context
    const proven = size === 0 && isHashOfNothing(digest)
    const wrong = size === 0 && !proven
    const accessed = stamp()
    const state = proven ? 'complete' : 'partial'
    const made = { digest, size, mediaType, state, created: this.#clock.now(), accessed } as const
    const id = wrong ? undefined : disk.guard(() => index.create(made))
    const facts = { ...made, id: id ?? DETACHED_ID, presentBytes: 0 }
    if (id === undefined) return this.#detached(facts, wrong)
    this.#count += 1
    return this.#adopt(new BlobEntry(this.#context, { facts, marked: !proven }))
  }

  #detached(facts: ConstructorParameters<typeof BlobEntry>[1]['facts'], wrong: boolean): BlobEntry {
    const { digest } = facts
    if (wrong) {
      this.#context.metrics.quarantined.inc()
      this.#context.log.error({ digest, sources: [] }, 'blob of no bytes does not hash to its digest')
    }
    return new BlobEntry(this.#context, { facts, marked: false, detached: wrong ? 'quarantined' : 'unstored' })
  }

  #adopt(blob: BlobEntry): BlobEntry {
    this.#known.set(blob.digest, new WeakRef(blob))
    this.#collected.register(blob, blob.digest)
    this.#recent.set(blob.digest, blob)
    return blob
  }
}

function isHashOfNothing(digest: Digest): boolean {
  return createHash(digestAlgorithm(digest)).digest('hex') === digestHex(digest)
}
