import { createHash } from 'node:crypto'
import {
  digestAlgorithm,
  digestHex,
  parseContentRange,
  rangeLength,
  type BegunBlob,
  type BlobInfo,
  type BlobKey,
  type ByteRange,
  type Digest,
  type SourceOptions,
} from '../core/index.ts'
import { bodyError, statusError } from './failures.ts'
import { RangedBody, type BodyAttempt } from './ranged-body.ts'
import type { RegistryClient, RegistryResponse } from './registry-client.ts'
import { discard, drain, headerOf } from './transport.ts'

/** Asked for where HEAD does not tell the size. */
const FIRST_BYTE: ByteRange = { start: 0, end: 1 }

/** What a size has to be for this blob, when an earlier answer told. */
export interface KnownSizes {
  get(key: BlobKey): number | undefined
  forget(key: BlobKey): void
}

/** HEAD, or the first byte and its Content-Range from registries that do not answer HEAD properly. Undefined: unknown there. */
export async function statBlob(
  client: RegistryClient,
  key: BlobKey,
  options: SourceOptions,
): Promise<BlobInfo | undefined> {
  return client.retries().run(async () => {
    const request = { repository: key.repository, path: `blobs/${key.digest}` }
    const head = await client.send({ ...request, method: 'HEAD' }, options)
    drain(head.body)
    if (head.status === 404) return undefined
    const size = head.status === 200 && !isEncoded(head) ? contentLength(head) : undefined
    if (size !== undefined && (size > 0 || isEmptyDigest(key.digest))) return infoOf(head, size)
    return probeBlob(await client.send({ ...request, method: 'GET', range: FIRST_BYTE }, options))
  }, options)
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

function infoOf({ headers, visibility }: RegistryResponse, size: number): BlobInfo {
  const mediaType = headerOf(headers, 'content-type')
  return { size, visibility, ...(mediaType === undefined ? {} : { mediaType }) }
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
  readonly client: RegistryClient
  readonly sizes: KnownSizes
  readonly received: (bytes: number) => void
}

/**
 * The size and the first bytes of a blob in one request. Whatever is unusual about the answer (no total, Range ignored, 416) is left to
 * statBlob() and openBlob(), which know how to deal with it.
 */
export async function beginBlob(
  deps: OpenDeps,
  key: BlobKey,
  range: ByteRange,
  options: SourceOptions,
): Promise<BegunBlob | undefined> {
  const { client } = deps
  const path = `blobs/${key.digest}`
  const asked = { start: range.start, end: Math.min(range.end, Number.MAX_SAFE_INTEGER) }
  const begun = await client.retries().run(async () => {
    const response = await client.send({ method: 'GET', repository: key.repository, path, range: asked }, options)
    if (response.status === 404) {
      drain(response.body)
      return 'absent'
    }
    const first = isEncoded(response) ? undefined : firstBytes(response, asked)
    if (first === undefined) discard(response.body)
    return first
  }, options)
  if (begun === 'absent') return undefined
  if (begun !== undefined) {
    const retries = client.retries()
    const body = new RangedBody(
      { retries, reopen: reopener(deps, key, options), received: deps.received },
      { range: begun.range, first: begun.attempt, signal: options.signal },
    )
    return { info: begun.info, range: begun.range, body }
  }
  const info = await statBlob(client, key, options)
  if (info === undefined) return undefined
  const cut = { start: Math.min(range.start, info.size), end: Math.min(range.end, info.size) }
  const body = cut.start < cut.end ? await openBlob(deps, key, cut, options) : NOTHING
  return body === undefined ? undefined : { info, range: cut, body }
}

const NOTHING: AsyncIterable<Uint8Array> = {
  [Symbol.asyncIterator]: () => ({ next: () => Promise.resolve({ done: true, value: undefined }) }),
}

/** Undefined: the answer does not tell the size, or is not the range asked for. */
function firstBytes(
  response: RegistryResponse,
  asked: ByteRange,
): { info: BlobInfo; range: ByteRange; attempt: BodyAttempt } | undefined {
  const { body, headers, host, status } = response
  const length = contentLength(response)
  const content = parseContentRange(headerOf(headers, 'content-range'))
  const size = status === 206 ? content?.size : length
  if (size === undefined) return undefined
  const range = { start: asked.start, end: Math.min(asked.end, size) }
  const isPart = content?.range.start === range.start && content.range.end === range.end
  const isRight =
    status === 206 ? isPart && (length ?? rangeLength(range)) === rangeLength(range) : isAll(status, range, size)
  if (!isRight || range.start >= range.end) return undefined
  return { info: infoOf(response, size), range, attempt: { body, host, skip: 0, open: false } }
}

function isAll(status: number, range: ByteRange, size: number): boolean {
  return status === 200 && range.start === 0 && range.end === size
}

async function requestRange(
  deps: Pick<OpenDeps, 'client' | 'sizes'>,
  key: BlobKey,
  range: ByteRange,
  options: SourceOptions,
): Promise<BodyAttempt | undefined> {
  const { client, sizes } = deps
  const request = { method: 'GET', repository: key.repository, path: `blobs/${key.digest}`, range } as const
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

/** The whole blob happens to be what was asked for. */
function isWhole(response: RegistryResponse, range: ByteRange): boolean {
  return range.start === 0 && contentLength(response) === range.end
}

/** Holds the headers against what was asked. Throws ERR_UPSTREAM_BODY or ERR_UPSTREAM_STATUS. */
function attemptFrom(response: RegistryResponse, range: ByteRange, known: number | undefined): BodyAttempt {
  const { body, headers, host, status } = response
  if (status !== 200 && status !== 206) throw statusError(host, status)
  if (isEncoded(response)) throw bodyError(host, 'encodes the content of a blob')
  const length = contentLength(response)
  if (status === 206) {
    const content = parseContentRange(headerOf(headers, 'content-range'))
    if (content === undefined || content.range.start !== range.start || content.range.end !== range.end) {
      throw bodyError(host, `sent another range than ${range.start}-${range.end - 1}`, { sent: content?.range })
    }
    checkSize(host, content.size, known)
    if (length !== undefined && length !== rangeLength(range))
      throw bodyError(host, 'contradicts its own Content-Range')
    return { body, host, skip: 0, open: false }
  }
  if (response.ranged && !isWhole(response, range)) throw bodyError(host, 'ignores Range only now and then')
  checkSize(host, length, known)
  if (length !== undefined && length < range.end) {
    throw bodyError(host, `has ${length} bytes, ${range.end} were expected`, { size: length })
  }
  return { body, host, skip: range.start, open: length !== range.end }
}

function checkSize(host: string, size: number | undefined, known: number | undefined): void {
  if (size === undefined || known === undefined || size === known) return
  throw bodyError(host, `says the blob has ${size} bytes, and ${known} before`, { size, known })
}

/** Bytes of the content. Undefined when absent, doubled or no number. */
function contentLength({ headers }: RegistryResponse): number | undefined {
  const text = headerOf(headers, 'content-length') ?? ''
  const length = /^\d+$/.test(text) ? Number(text) : undefined
  return length !== undefined && Number.isSafeInteger(length) ? length : undefined
}

/** Any coding but identity: offsets would mean something else, although `Accept-Encoding: identity` was sent. */
function isEncoded({ headers }: RegistryResponse): boolean {
  const content = headerOf(headers, 'content-encoding')?.trim().toLowerCase()
  const transfer = headerOf(headers, 'transfer-encoding')?.trim().toLowerCase()
  const plain = content === undefined || content === '' || content === 'identity'
  return !plain || (transfer !== undefined && transfer !== 'chunked' && transfer !== 'identity')
}

function isEmptyDigest(digest: Digest): boolean {
  return createHash(digestAlgorithm(digest)).digest('hex') === digestHex(digest)
}
