import { ShoalError, errorCode, type BlobKey, type BlobSource, type Origin } from '../core/index.ts'

/** Where the reader may get things: handed in by the composition root, so that blobs/ knows neither registries nor peers. */
export interface Sources {
  /** For blobs, in the order to try. Empty: the registry is not in the table. */
  forBlob(key: BlobKey): readonly BlobSource[]
  /** For manifests and listings. Undefined: the registry is not in the table. */
  origin(registry: string): Origin | undefined
}

export function originOrThrow(sources: Sources, registry: string): Origin {
  const origin = sources.origin(registry)
  if (origin !== undefined) return origin
  throw new ShoalError('ERR_ORIGIN_UNKNOWN', `registry "${registry}" is not in the configured table`, {
    details: { registry },
  })
}

/** Whether the failure says that nobody could be asked, as against an origin that answered no. */
export function isUnreachable(error: unknown): boolean {
  const code = errorCode(error)
  return code !== 'ERR_UPSTREAM_AUTH' && code !== 'ERR_ORIGIN_UNKNOWN' && code !== 'ERR_CLOSED'
}
