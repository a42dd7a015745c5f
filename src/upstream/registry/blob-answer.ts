import { MAX_BLOB_BYTES, parseContentRange, rangeLength, type BlobInfo, type ByteRange } from '../../core/index.ts'
import { bodyError, statusError } from '../net/failures.ts'
import type { BodyAttempt } from './ranged-body.ts'
import type { RegistryResponse } from './registry-client.ts'
import { headerOf } from '../net/transport.ts'

/** The size of a blob, its first bytes, and which they are. */
export interface FirstBytes {
  readonly info: BlobInfo
  readonly range: ByteRange
  readonly attempt: BodyAttempt
}

/** Throws ERR_UPSTREAM_BODY when no blob is that large. */
export function infoOf({ headers, host, visibility }: RegistryResponse, size: number): BlobInfo {
  if (size > MAX_BLOB_BYTES) throw bodyError(host, `says that a blob has ${size} bytes`, { size })
  const mediaType = headerOf(headers, 'content-type')
  return { size, visibility, ...(mediaType === undefined ? {} : { mediaType }) }
}

/** Undefined: the answer does not tell the size, or is not the range asked for. Throws ERR_UPSTREAM_BODY for a size that no blob has. */
export function firstBytes(response: RegistryResponse, asked: ByteRange): FirstBytes | undefined {
  const { body, headers, host, ranged, status } = response
  if (status !== 200 && status !== 206) return undefined
  const length = contentLength(response)
  const content = status === 206 ? parseContentRange(headerOf(headers, 'content-range')) : undefined
  const size = status === 206 ? content?.size : length
  if (size === undefined) return undefined
  const info = infoOf(response, size)
  const range = { start: asked.start, end: Math.min(asked.end, size) }
  if (range.start >= range.end) return undefined
  if (content !== undefined) {
    const isPart = content.range.start === range.start && content.range.end === range.end
    if (!isPart || (length ?? rangeLength(range)) !== rangeLength(range)) return undefined
    return { info, range, attempt: { body, host, skip: 0, open: false } }
  }
  // Who was asked for a range and sends something else is not to be trusted with what it is; who was not sends the blob.
  if (ranged && !(range.start === 0 && range.end === size)) return undefined
  return { info, range, attempt: { body, host, skip: range.start, open: range.end < size } }
}

/** The whole blob happens to be what was asked for. */
export function isWhole(response: RegistryResponse, range: ByteRange): boolean {
  return range.start === 0 && contentLength(response) === range.end
}

/** Holds the headers against what was asked. Throws ERR_UPSTREAM_BODY or ERR_UPSTREAM_STATUS. */
export function attemptFrom(response: RegistryResponse, range: ByteRange, known: number | undefined): BodyAttempt {
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
export function contentLength({ headers }: RegistryResponse): number | undefined {
  const text = headerOf(headers, 'content-length') ?? ''
  const length = /^\d+$/.test(text) ? Number(text) : undefined
  return length !== undefined && Number.isSafeInteger(length) ? length : undefined
}

/** Any coding but identity: offsets would mean something else, although `Accept-Encoding: identity` was sent. */
export function isEncoded({ headers }: RegistryResponse): boolean {
  const content = headerOf(headers, 'content-encoding')?.trim().toLowerCase()
  const transfer = headerOf(headers, 'transfer-encoding')?.trim().toLowerCase()
  const plain = content === undefined || content === '' || content === 'identity'
  return !plain || (transfer !== undefined && transfer !== 'chunked' && transfer !== 'identity')
}
