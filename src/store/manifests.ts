import type { Digest } from '../core/index.ts'
import type { Batch } from './batch.ts'
import type { DiskHealth } from './disk-health.ts'
import type { IndexDb, ManifestRow } from './index-db.ts'

/** What a reference stood for when it was last checked. The body is a blob of the store. */
export interface ManifestRecord {
  readonly digest: Digest
  readonly mediaType: string
  /** Bytes of the body. */
  readonly size: number
  readonly etag?: string
  /** Milliseconds since 1970. */
  readonly checkedAt: number
}

export interface ManifestsDeps {
  readonly index: IndexDb
  readonly disk: DiskHealth
  readonly batch: Batch
  readonly assertOpen: () => void
}

/** Manifests by (registry, repository, tag or digest). Synchronous. Written in batches, removed at once. A record goes when the blob of its body goes. */
export class Manifests {
  readonly #deps: ManifestsDeps

  constructor(deps: ManifestsDeps) {
    this.#deps = deps
  }

  get(registry: string, repository: string, reference: string): ManifestRecord | undefined {
    this.#deps.assertOpen()
    const waiting = this.#deps.batch.waiting(keyOf(registry, repository, reference))
    if (waiting?.kind === 'manifest') return recordOf(waiting.row)
    const read = this.#deps.disk.guard(
      () => ({ row: this.#deps.index.manifest(registry, repository, reference) }),
      'index read failed',
    )
    return read?.row === undefined ? undefined : recordOf(read.row)
  }

  put(registry: string, repository: string, reference: string, record: ManifestRecord): void {
    this.#deps.assertOpen()
    const { digest, mediaType, size, etag = null, checkedAt } = record
    const row = {
      ...{ registry, repository, reference, digest, size, etag },
      media_type: mediaType,
      checked_at: checkedAt,
    }
    this.#deps.batch.put(keyOf(registry, repository, reference), { kind: 'manifest', row })
  }

  remove(registry: string, repository: string, reference: string): void {
    this.#deps.assertOpen()
    this.#deps.batch.withdraw(keyOf(registry, repository, reference))
    this.#deps.disk.guard(() => this.#deps.index.removeManifest(registry, repository, reference))
  }
}

function recordOf(row: ManifestRow): ManifestRecord {
  const { digest, media_type: mediaType, size, etag, checked_at: checkedAt } = row
  return etag === null ? { digest, mediaType, size, checkedAt } : { digest, mediaType, size, etag, checkedAt }
}

/** Spaces are in none of the three. */
function keyOf(registry: string, repository: string, reference: string): string {
  return `manifest ${registry} ${repository} ${reference}`
}
