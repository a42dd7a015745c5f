import { formatContentRange, rangeLength, type ByteRange } from '../core/index.ts'

export interface MultipartPlan {
  readonly contentType: string
  readonly contentLength: number
  readonly parts: readonly { readonly head: Buffer; readonly range: ByteRange }[]
  readonly tail: Buffer
}

/** Lays out a multipart/byteranges body (RFC 9110, section 14.6), so that its length is known before its first byte. */
export function planMultipart(
  ranges: readonly ByteRange[],
  size: number,
  mediaType: string,
  boundary: string,
): MultipartPlan {
  const parts = ranges.map((range, index) => ({
    head: Buffer.from(
      `${index === 0 ? '' : '\r\n'}--${boundary}\r\nContent-Type: ${mediaType}\r\nContent-Range: ${formatContentRange(range, size)}\r\n\r\n`,
    ),
    range,
  }))
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`)
  const contentLength = parts.reduce((sum, part) => sum + part.head.length + rangeLength(part.range), tail.length)
  return { contentType: `multipart/byteranges; boundary=${boundary}`, contentLength, parts, tail }
}
