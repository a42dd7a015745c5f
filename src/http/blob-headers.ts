import type { IncomingMessage } from 'node:http'
import { parseRangeHeader, resolveRanges, type ByteRange, type Digest } from '../core/index.ts'

/** What an answer says of a blob. */
export interface Described {
  readonly size: number
  readonly mediaType?: string | undefined
}

/** What of the blob to send: everything, one range, or several. */
export type Selection =
  | { readonly kind: 'not-modified' }
  | { readonly kind: 'whole' }
  | { readonly kind: 'ranges'; readonly ranges: readonly ByteRange[] }

export function etagOf(digest: Digest): string {
  return `"${digest}"`
}

/**
 * Conditional and range headers against the blob (RFC 9110, sections 13.1.2, 13.1.5 and 14.2). A blob never changes, so its digest is a
 * strong validator. Throws ERR_RANGE_UNSATISFIABLE.
 */
export function selectionOf(request: IncomingMessage, digest: Digest, size: number): Selection {
  const { headers } = request
  const etag = etagOf(digest)
  const noneMatch = headers['if-none-match']
  if (noneMatch !== undefined && listMatches(noneMatch, etag)) return { kind: 'not-modified' }
  if (request.method !== 'GET' || headers.range === undefined) return { kind: 'whole' }
  const ifRange = headers['if-range']
  if (ifRange !== undefined && ifRange !== etag) return { kind: 'whole' }
  const specs = parseRangeHeader(headers.range)
  if (specs === undefined) return { kind: 'whole' }
  const ranges = resolveRanges(specs, size)
  // Overlapping ranges that add up to more than the blob are an attack or a mistake; the blob itself answers both.
  const total = ranges.reduce((sum, range) => sum + range.end - range.start, 0)
  return ranges.length > 1 && total > size ? { kind: 'whole' } : { kind: 'ranges', ranges }
}

/** `bytes=a-b` or `bytes=a-` against a size: what nearly every client sends. Undefined: something else, or not satisfiable. */
export function singleRange(header: string | undefined, size: number): ByteRange | undefined {
  const match = /^bytes=(\d{1,15})-(\d{0,15})$/.exec(header ?? '')
  if (match === null) return undefined
  const start = Number(match[1])
  const end = match[2] === '' ? size : Math.min(size, Number(match[2]) + 1)
  return start < end ? { start, end } : undefined
}

/** The bytes that a GET will want first, before the size is known. Undefined: nothing can be said (a suffix, several ranges, a condition). */
export function firstBytesOf(request: IncomingMessage): ByteRange | undefined {
  const { headers } = request
  if (request.method !== 'GET' || headers['if-none-match'] !== undefined || headers['if-range'] !== undefined)
    return undefined
  const specs = parseRangeHeader(headers.range)
  if (specs === undefined) return { start: 0, end: Infinity }
  const [spec] = specs
  if (spec === undefined || specs.length > 1 || 'suffix' in spec) return undefined
  return { start: spec.first, end: spec.last === undefined ? Infinity : spec.last + 1 }
}

/** The value of Server-Timing: milliseconds by where they were spent. */
export function serverTiming(parts: { readonly store?: number; readonly origin?: number }): string {
  return Object.entries(parts)
    .map(([name, milliseconds]) => `${name};dur=${milliseconds.toFixed(1)}`)
    .join(', ')
}

/** A media type that may stand in a header: what an origin says is passed on only if it looks like one. */
export function safeMediaType(mediaType: string | undefined): string {
  return mediaType !== undefined && /^[\x21-\x7e]+\/[\x20-\x7e]+$/.test(mediaType)
    ? mediaType
    : 'application/octet-stream'
}

/** Whether an If-None-Match header names `etag` (RFC 9110, 13.1.2: weak comparison, lists, `*`). */
export function listMatches(header: string, etag: string): boolean {
  return header.split(',').some(part => {
    const candidate = part.trim()
    return candidate === '*' || candidate === etag || candidate === `W/${etag}`
  })
}

/** Headers of every answer about a blob, as a flat list of names and values. */
export function blobHeaders(
  digest: Digest,
  info: Pick<Described, 'mediaType'>,
  namespace: string | undefined,
): string[] {
  const headers = [
    'Content-Type',
    safeMediaType(info.mediaType),
    'Docker-Content-Digest',
    digest,
    'ETag',
    etagOf(digest),
    'Accept-Ranges',
    'bytes',
    'Docker-Distribution-Api-Version',
    'registry/2.0',
  ]
  if (namespace !== undefined) headers.push('OCI-Namespace', namespace)
  return headers
}
