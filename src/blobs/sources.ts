import {
  ShoalError,
  asError,
  errorCode,
  type BlobKey,
  type BlobSource,
  type Origin,
  type Visibility,
} from '../core/index.ts'

/** What the operator says of who may read from a registry. `auto`: nothing, whatever is proven counts. */
export type ReadPolicy = Visibility | 'auto'

/** Where the reader may get things: handed in by the composition root, so that blobs/ knows neither registries nor peers. */
export interface Sources {
  /**
   * For blobs, in the order to try. The last one is the origin itself: what it says counts, whatever went wrong at those before it. A
   * source that need not be asked now, because it is known to be down, says that it is without the blob. Empty: the registry is not in the
   * table.
   */
  forBlob(key: BlobKey): readonly BlobSource[]
  /** For manifests and listings. Undefined: the registry is not in the table. */
  origin(registry: string): Origin | undefined
  /** Undefined: the registry is not in the table. */
  policy(registry: string): ReadPolicy | undefined
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

/**
 * Asks one source after the other until one has an answer. Nobody has one: the last one's word is final, be it that it is without
 * (undefined) or that it failed (thrown). `failed` hears of each failure; what it throws ends the asking.
 */
export async function firstAnswer<S, T>(
  sources: readonly S[],
  ask: (source: S) => Promise<T | undefined>,
  failed: (source: S, error: unknown) => void,
): Promise<T | undefined> {
  let failure: Error | undefined
  for (const source of sources) {
    try {
      const answer = await ask(source)
      if (answer !== undefined) return answer
      failure = undefined
    } catch (error: unknown) {
      failed(source, error)
      failure = asError(error)
    }
  }
  if (failure !== undefined) throw failure
  return undefined
}
