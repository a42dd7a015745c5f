import { LRUCache } from 'lru-cache'
import type { Digest, Visibility } from '../core/index.ts'
import type { Batch } from './batch.ts'
import type { DiskHealth } from './disk-health.ts'
import type { IndexDb, PlaceRow } from './index-db.ts'

/** By what right a blob may be read in a repository, and how long that is taken as known. */
export interface Place {
  readonly visibility: Visibility
  /** Milliseconds since 1970. Judged by the caller: rows outlive it. */
  readonly until: number
  /** Bytes of the blob, when the origin said so. */
  readonly size?: number
}

/** Entries kept in memory, absent ones included; the hit path asks for one per request. */
const CACHED = 10_000

export interface PlacesDeps {
  readonly index: IndexDb
  readonly disk: DiskHealth
  readonly batch: Batch
  readonly assertOpen: () => void
}

/**
 * Where blobs may be asked for. Synchronous. Written in batches, removed at once. A row that cannot be written is remembered until it falls out
 * of the cache.
 */
export class Places {
  readonly #deps: PlacesDeps
  readonly #cache = new LRUCache<string, { readonly place: Place | undefined }>({ max: CACHED })

  constructor(deps: PlacesDeps) {
    this.#deps = deps
  }

  where(registry: string, repository: string, digest: Digest): Place | undefined {
    this.#deps.assertOpen()
    const key = keyOf(registry, repository, digest)
    const cached = this.#cache.get(key)
    if (cached !== undefined) return cached.place
    const waiting = this.#deps.batch.waiting(key)
    if (waiting?.kind === 'place') return placeOf(waiting.row)
    const read = this.#deps.disk.guard(
      () => ({ place: placeOf(this.#deps.index.place(registry, repository, digest)) }),
      'index read failed',
    )
    if (read !== undefined) this.#cache.set(key, read)
    return read?.place
  }

  put(registry: string, repository: string, digest: Digest, place: Place): void {
    this.#deps.assertOpen()
    const key = keyOf(registry, repository, digest)
    this.#cache.set(key, { place })
    const { visibility, until, size = null } = place
    this.#deps.batch.put(key, { kind: 'place', row: { registry, repository, digest, visibility, until, size } })
  }

  remove(registry: string, repository: string, digest: Digest): void {
    this.#deps.assertOpen()
    const key = keyOf(registry, repository, digest)
    this.#cache.set(key, { place: undefined })
    this.#deps.batch.withdraw(key)
    this.#deps.disk.guard(() => this.#deps.index.removePlace(registry, repository, digest))
  }
}

function placeOf(row: PlaceRow | undefined): Place | undefined {
  if (row === undefined) return undefined
  const { visibility, until, size } = row
  return size === null ? { visibility, until } : { visibility, until, size }
}

/** Spaces are in none of the three. */
function keyOf(registry: string, repository: string, digest: Digest): string {
  return `place ${registry} ${repository} ${digest}`
}
