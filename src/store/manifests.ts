import type { Digest } from '../core/index.ts'
import type { DiskHealth } from './disk-health.ts'
import type { IndexDb } from './index-db.ts'

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
  readonly assertOpen: () => void
}

/** Manifests by (registry, repository, tag or digest). Synchronous. A record goes when the blob of its body goes. */
export class Manifests {
  readonly #deps: ManifestsDeps

  constructor(deps: ManifestsDeps) {
    this.#deps = deps
  }

  get(registry: string, repository: string, reference: string): ManifestRecord | undefined {
    this.#deps.assertOpen()
    const read = this.#deps.disk.guard(
      () => ({ row: this.#deps.index.manifest(registry, repository, reference) }),
      'index read failed',
    )
    if (read?.row === undefined) return undefined
    const { digest, media_type: mediaType, size, etag, checked_at: checkedAt } = read.row
    return etag === null ? { digest, mediaType, size, checkedAt } : { digest, mediaType, size, etag, checkedAt }
  }

  put(registry: string, repository: string, reference: string, record: ManifestRecord): void {
    this.#deps.assertOpen()
    const { digest, mediaType, size, etag = null, checkedAt } = record
    this.#deps.disk.guard(() => {
      this.#deps.index.putManifest({
        registry,
        repository,
        reference,
        digest,
        media_type: mediaType,
        size,
        etag,
        checked_at: checkedAt,
      })
      return true
    })
  }

  remove(registry: string, repository: string, reference: string): void {
    this.#deps.assertOpen()
    this.#deps.disk.guard(() => this.#deps.index.removeManifest(registry, repository, reference))
  }
}
