import { ShoalError } from './errors.ts'

/** Absolute, half-open: bytes start, start+1 ... end-1. Always 0 <= start <= end. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

/** One range as a client wrote it (RFC 9110, section 14.1.2): `a-b` (inclusive), `a-`, or `-n`. */
export type RangeSpec = { readonly first: number; readonly last: number | undefined } | { readonly suffix: number }

/** More ranges than this in one request are treated as if no Range had been sent. */
export const MAX_RANGES = 64

export function rangeLength(range: ByteRange): number {
  return range.end - range.start
}

/**
 * Parses a Range header. Undefined means: no usable Range, answer the whole blob, which is what RFC 9110 asks for when the header is
 * syntactically wrong or in another unit. Also undefined above MAX_RANGES.
 */
export function parseRangeHeader(header: string | undefined): RangeSpec[] | undefined {
  if (header === undefined) return undefined
  const match = /^bytes[ \t]*=(.*)$/i.exec(header)
  if (match?.[1] === undefined) return undefined
  const specs: RangeSpec[] = []
  for (const part of match[1].split(',')) {
    const text = part.trim()
    if (text === '') continue
    const spec = parseSpec(text)
    if (spec === undefined || specs.length === MAX_RANGES) return undefined
    specs.push(spec)
  }
  return specs.length > 0 ? specs : undefined
}

function parseSpec(text: string): RangeSpec | undefined {
  const match = /^(\d*)-(\d*)$/.exec(text)
  if (match === null) return undefined
  const [, first = '', last = ''] = match
  if (first === '') return last === '' ? undefined : { suffix: toNumber(last) }
  const spec = { first: toNumber(first), last: last === '' ? undefined : toNumber(last) }
  return spec.last !== undefined && spec.last < spec.first ? undefined : spec
}

/** Digits beyond 2^53 mean "further than any blob reaches", which is all that is asked of them. */
function toNumber(digits: string): number {
  return Math.min(Number(digits), Number.MAX_SAFE_INTEGER)
}

/** One spec against a size. Undefined when it is unsatisfiable. */
export function resolveRange(spec: RangeSpec, size: number): ByteRange | undefined {
  if ('suffix' in spec) {
    if (spec.suffix === 0 || size === 0) return undefined
    return { start: Math.max(0, size - spec.suffix), end: size }
  }
  if (spec.first >= size) return undefined
  return { start: spec.first, end: spec.last === undefined ? size : Math.min(spec.last + 1, size) }
}

/** The satisfiable ones of `specs`, in the order asked. Throws ERR_RANGE_UNSATISFIABLE when there is none. */
export function resolveRanges(specs: readonly RangeSpec[], size: number): ByteRange[] {
  const ranges = specs.map(spec => resolveRange(spec, size)).filter(range => range !== undefined)
  if (ranges.length > 0) return ranges
  throw new ShoalError('ERR_RANGE_UNSATISFIABLE', `no requested range lies within the blob's ${size} bytes`, {
    details: { size },
  })
}

/** `bytes a-b/size`, inclusive as the header wants it. `range` must not be empty. */
export function formatContentRange(range: ByteRange, size: number): string {
  return `bytes ${range.start}-${range.end - 1}/${size}`
}

/** A request's Range header for an absolute range. `range` must not be empty. */
export function formatRangeHeader(range: ByteRange): string {
  return `bytes=${range.start}-${range.end - 1}`
}

/** Parses `bytes a-b/size` or `bytes a-b/*`. Undefined when it is neither. */
export function parseContentRange(
  header: string | undefined,
): { range: ByteRange; size: number | undefined } | undefined {
  const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(header ?? '')
  if (match === null) return undefined
  const start = Number(match[1])
  const last = Number(match[2])
  const size = match[3] === '*' ? undefined : Number(match[3])
  if (!Number.isSafeInteger(last) || last < start || (size !== undefined && last >= size)) return undefined
  return { range: { start, end: last + 1 }, size }
}
