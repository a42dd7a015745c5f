import {
  ShoalError,
  asError,
  errorCode,
  type BegunBlob,
  type BlobKey,
  type BlobSource,
  type ByteRange,
  type Logger,
} from '../core/index.ts'
import type { BlobMetrics } from './metrics.ts'
import type { Segment } from './segment.ts'
import { firstAnswer } from './sources.ts'

export interface FetchDeps {
  readonly log: Logger
  readonly metrics: BlobMetrics
  /** The sources of a blob in the order to try them; the last one is its origin. */
  readonly sources: (key: BlobKey) => readonly BlobSource[]
}

/** For whom bytes are fetched. */
export interface Fetcher {
  readonly key: BlobKey
  readonly authorization: string | undefined
}

/** A body under way, and how to end it. */
export interface AdoptedBody extends Fetcher, Pick<BegunBlob, 'range' | 'body'> {
  readonly source: string
  readonly abort: AbortController
}

/**
 * Brings what is left of `segment` from the first source that delivers; one that dies is followed by the next, from the next byte on. Where
 * a body has begun already, it comes first. `receive` takes each piece, and makes the segment's position move.
 */
export async function fetchSegment(
  deps: FetchDeps,
  segment: Segment,
  { fetcher, begun }: { readonly fetcher: Fetcher; readonly begun: AdoptedBody | undefined },
  receive: (piece: Uint8Array, source: string) => Promise<void>,
): Promise<void> {
  const { key } = fetcher
  const { signal } = segment.abort
  const attempts = deps.sources(key).map(source => ({
    name: source.name,
    open: () => source.open(key, { start: segment.position, end: segment.end }, sourceOptions(fetcher, signal)),
  }))
  if (begun !== undefined) attempts.unshift({ name: begun.source, open: () => Promise.resolve(begun.body) })
  const done = await firstAnswer(
    attempts,
    async ({ name, open }) => {
      const body = await open()
      if (body === undefined) return undefined
      for await (const piece of body) await receive(piece, name)
      if (segment.remaining > 0) throw tooFew(name, segment.remaining)
      return true
    },
    ({ name }, error) => {
      signal.throwIfAborted()
      sourceFailed(deps, key, name, error)
    },
  )
  if (done === undefined) throw absentEverywhere(key)
}

/** Bytes straight from the sources, past the store, in the same manner. */
export async function* fetchDirect(
  deps: FetchDeps,
  range: ByteRange,
  fetcher: Fetcher,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { key } = fetcher
  let position = range.start
  let failure: Error | undefined
  for (const source of deps.sources(key)) {
    try {
      const body = await source.open(key, { start: position, end: range.end }, sourceOptions(fetcher, signal))
      failure = undefined
      if (body === undefined) continue
      for await (const piece of body) {
        yield piece
        position += piece.length
      }
      if (position < range.end) throw tooFew(source.name, range.end - position)
      return
    } catch (error: unknown) {
      signal?.throwIfAborted()
      failure = asError(error)
      sourceFailed(deps, key, source.name, error)
    }
  }
  throw failure ?? absentEverywhere(key)
}

function sourceOptions({ authorization }: Fetcher, signal: AbortSignal | undefined): Parameters<BlobSource['open']>[2] {
  return { ...(signal === undefined ? {} : { signal }), ...(authorization === undefined ? {} : { authorization }) }
}

function sourceFailed({ metrics, log }: FetchDeps, key: BlobKey, source: string, error: unknown): void {
  metrics.sourceFailures.inc({ code: errorCode(error) ?? 'other' })
  log.warn({ digest: key.digest, source, err: error }, 'source failed')
}

function tooFew(source: string, bytes: number): ShoalError {
  return new ShoalError('ERR_UPSTREAM_BODY', `${source} sent ${bytes} bytes too few`)
}

function absentEverywhere(key: BlobKey): ShoalError {
  return new ShoalError('ERR_BLOB_UNAVAILABLE', `no source has ${key.digest} for ${key.registry}/${key.repository}`, {
    details: { absent: true },
  })
}
