import { createHash } from 'node:crypto'
import {
  MAX_BLOB_BYTES,
  digestAlgorithm,
  digestHex,
  parseContentRange,
  type BegunBlob,
  type BlobInfo,
  type BlobKey,
  type ByteRange,
  type Digest,
  type SourceOptions,
} from '../../core/index.ts'
import { attemptFrom, contentLength, firstBytes, infoOf, isEncoded, isWhole, type FirstBytes } from './blob-answer.ts'
import { bodyError, statusError } from '../net/failures.ts'
import { RangedBody, type BodyAttempt } from './ranged-body.ts'
import type { RegistryClient, RegistryRequest, RegistryResponse } from './registry-client.ts'
import { discard, drain, headerOf } from '../net/transport.ts'

/** Asked for where HEAD does not tell the size. */
const FIRST_BYTE: ByteRange = { start: 0, end: 1 }

/** Who sends the requests for a blob. */
export type BlobClient = Pick<RegistryClient, 'base' | 'ignoresRange' | 'retries' | 'send'>

/** What a size has to be for this blob, when an earlier answer told. */
export interface KnownSizes {
  get(key: BlobKey): number | undefined
  forget(key: BlobKey): void
}

/**
 * HEAD, or the first byte and its Content-Range from registries that do not answer HEAD properly. Undefined: unknown there. Throws
 * ERR_UPSTREAM_BODY when the registry does not tell the size, or one that no blob has.
 */
export async function statBlob(
  client: BlobClient,
  key: BlobKey,
  options: SourceOptions,
): Promise<BlobInfo | undefined> {
  return client.retries().run(async () => {
    const head = await client.send({ ...getBlob(key), method: 'HEAD' }, options)
    drain(head.body)
    if (head.status === 404) return undefined
    const size = head.status === 200 && !isEncoded(head) ? contentLength(head) : undefined
    if (size !== undefined && (size > 0 || isEmptyDigest(key.digest))) return infoOf(head, size)
    return probeBlob(await client.send({ ...getBlob(key), range: FIRST_BYTE }, options))
  }, options)
}

function getBlob({ digest, repository }: BlobKey): RegistryRequest {
  return { method: 'GET', repository, path: `blobs/${digest}` }
}

function probeBlob(response: RegistryResponse): BlobInfo | undefined {
  const { body, headers, host, status } = response
  discard(body)
  if (status === 404) return undefined
  const contentRange = headerOf(headers, 'content-range')
  if (isEncoded(response)) throw bodyError(host, 'encodes the content of a blob')
  const size = sizeFrom(response, contentRange)
  if (size !== undefined) return infoOf(response, size)
  if (status === 200 || status === 206) throw bodyError(host, 'does not tell the size of a blob')
  throw statusError(host, status)
}

function sizeFrom(response: RegistryResponse, contentRange: string | undefined): number | undefined {
  if (response.status === 206) return parseContentRange(contentRange)?.size
  if (response.status === 200) return contentLength(response)
  // An empty blob has no first byte.
  return response.status === 416 && contentRange === 'bytes */0' ? 0 : undefined
}

/** The bytes of `range`, once the headers that promise exactly them are in. Undefined: unknown there. */
export async function openBlob(
  deps: OpenDeps,
  key: BlobKey,
  range: ByteRange,
  options: SourceOptions,
): Promise<AsyncIterable<Uint8Array> | undefined> {
  const { client, received } = deps
  const retries = client.retries()
  const first = await retries.run(() => requestRange(deps, key, range, options), options)
  if (first === undefined) return undefined
  return new RangedBody(
    { retries, reopen: reopener(deps, key, options), received },
    { range, first, signal: options.signal },
  )
}

/** Asks for what is left of a body that broke off. */
function reopener(deps: OpenDeps, key: BlobKey, options: SourceOptions): (part: ByteRange) => Promise<BodyAttempt> {
  return async part => {
    const attempt = await requestRange(deps, key, part, options)
    if (attempt === undefined) throw statusError(deps.client.base.host, 404)
    return attempt
  }
}

/** What openBlob() and beginBlob() need. */
export interface OpenDeps {
  readonly client: BlobClient
  readonly sizes: KnownSizes
  readonly received: (bytes: number) => void
}

/**
 * The size and the first bytes of a blob in one request. Whatever is unusual about the answer (no total, Range ignored, 416) is left to
 * statBlob() and openBlob(), which know how to deal with it. Throws ERR_UPSTREAM_BODY for a size that no blob has.
 */
export async function beginBlob(
  deps: OpenDeps,
  key: BlobKey,
  range: ByteRange,
  options: SourceOptions,
): Promise<BegunBlob | undefined> {
  const retries = deps.client.retries()
  const begun = await retries.run(() => requestFirst(deps, key, range, options), options)
  if (begun === 'absent') return undefined
  if (begun === 'unclear') return beginAnyhow(deps, key, range, options)
  const body = new RangedBody(
    { retries, reopen: reopener(deps, key, options), received: deps.received },
    { range: begun.range, first: begun.attempt, signal: options.signal },
  )
  return { info: begun.info, range: begun.range, body }
}

async function requestFirst(
  { client }: Pick<OpenDeps, 'client'>,
  key: BlobKey,
  range: ByteRange,
  options: SourceOptions,
): Promise<FirstBytes | 'absent' | 'unclear'> {
  // Nothing begins there, but servers that cannot count as far would say so in odd ways.
  if (range.start >= MAX_BLOB_BYTES) return 'unclear'
  const asked = { start: range.start, end: Math.min(range.end, MAX_BLOB_BYTES) }
  const response = await client.send({ ...getBlob(key), range: asked, bulk: true }, options)
  if (response.status === 404) {
    drain(response.body)
    return 'absent'
  }
  try {
    const first = isEncoded(response) ? undefined : firstBytes(response, asked)
    if (first === undefined) discard(response.body)
    return first ?? 'unclear'
  } catch (error: unknown) {
    discard(response.body)
    throw error
  }
}

/** In two steps. */
async function beginAnyhow(
  deps: OpenDeps,
  key: BlobKey,
  range: ByteRange,
  options: SourceOptions,
): Promise<BegunBlob | undefined> {
  const info = await statBlob(deps.client, key, options)
  if (info === undefined) return undefined
  const cut = { start: Math.min(range.start, info.size), end: Math.min(range.end, info.size) }
  const body = cut.start < cut.end ? await openBlob(deps, key, cut, options) : NOTHING
  return body === undefined ? undefined : { info, range: cut, body }
}

const NOTHING: AsyncIterable<Uint8Array> = {
  [Symbol.asyncIterator]: () => ({ next: () => Promise.resolve({ done: true, value: undefined }) }),
}

async function requestRange(
  deps: Pick<OpenDeps, 'client' | 'sizes'>,
  key: BlobKey,
  range: ByteRange,
  options: SourceOptions,
): Promise<BodyAttempt | undefined> {
  const { client, sizes } = deps
  const request = { ...getBlob(key), range, bulk: true, settled: true }
  let response = await client.send(request, options)
  if (response.ranged && response.status === 200 && !isWhole(response, range)) {
    // What these bytes are cannot be known: some servers send a slice with 200. Without a Range it can.
    discard(response.body)
    client.ignoresRange(response.host)
    response = await client.send(request, options)
  }
  if (response.status === 404) {
    drain(response.body)
    return undefined
  }
  try {
    return attemptFrom(response, range, sizes.get(key))
  } catch (error: unknown) {
    discard(response.body)
    response.forget()
    sizes.forget(key)
    throw error
  }
}

function isEmptyDigest(digest: Digest): boolean {
  return createHash(digestAlgorithm(digest)).digest('hex') === digestHex(digest)
}
