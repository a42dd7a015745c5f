import { errorCode, ShoalError, systemCode } from '../core/index.ts'

/** Put in the place of what must not be in a log. */
const REDACTED = '[redacted]'
const SECRET_FIELD =
  /^(?:(?:proxy-?)?authorization|(?:set-?)?cookies?|pass(?:word|wd)|secret|(?:access|refresh|identity)?_?token)$/i
const CREDENTIAL = /\b(Bearer|Basic)\s+(?=\S*[A-Z0-9=])[A-Za-z0-9._~+/=-]{8,}/g
const URL_IN_TEXT = /\b([a-z][a-z0-9+.-]*:\/\/)([^\s"'<>]+)/gi

/** Deeper than this, and longer than this, nobody reads a log line. */
const MAX_DEPTH = 6
const MAX_CAUSES = 5

/**
 * Fields of a log line as they may be written: a second line of defence, for when a room has passed on what it should not. Values under
 * names of secrets, credentials in texts, and the user and the query in URLs are taken out; errors become plain objects.
 */
export function sanitiseFields(fields: object): Record<string, unknown> {
  const clean = sanitise(fields, MAX_DEPTH)
  return typeof clean === 'object' && clean !== null ? { ...clean } : {}
}

function sanitise(value: unknown, depth: number): unknown {
  if (typeof value === 'string') return sanitiseText(value)
  if (typeof value === 'bigint') return value.toString()
  if (typeof value !== 'object' || value === null) return value
  if (depth === 0) return '[deeper]'
  if (value instanceof Error) return serialiseError(value, depth)
  if (value instanceof Date) return value.toISOString()
  if (value instanceof URL) return sanitiseText(value.href)
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`
  if (Array.isArray(value)) return value.map(item => sanitise(item, depth - 1))
  const entries = Object.entries(value).map(([key, item]): [string, unknown] => [
    key,
    SECRET_FIELD.test(key) ? REDACTED : sanitise(item, depth - 1),
  ])
  return Object.fromEntries(entries)
}

export function sanitiseText(text: string): string {
  const cleaned = text.includes('://')
    ? text.replace(URL_IN_TEXT, (_, scheme: string, rest: string) => scheme + bare(rest))
    : text
  return cleaned.replace(CREDENTIAL, `$1 ${REDACTED}`)
}

/** What follows `scheme://` in a URL without user, password, query and fragment. */
function bare(rest: string): string {
  const [beforeQuery = ''] = rest.split(/[?#]/, 1)
  const pathAt = beforeQuery.indexOf('/')
  const authority = pathAt === -1 ? beforeQuery : beforeQuery.slice(0, pathAt)
  return authority.slice(authority.lastIndexOf('@') + 1) + (pathAt === -1 ? '' : beforeQuery.slice(pathAt))
}

/** Code, message and details of an error and of its causes. The stack only of what nobody raised on purpose: there it says where. */
function serialiseError(error: Error, depth: number): Record<string, unknown> {
  const chain = causesOf(error)
  const causes = chain.map(cause => describe(cause, depth))
  const stack = errorCode(error) === undefined && error.stack !== undefined ? { stack: sanitiseText(error.stack) } : {}
  return { ...describe(error, depth), ...(causes.length > 0 ? { causes } : {}), ...stack }
}

function describe(error: unknown, depth: number): Record<string, unknown> {
  if (!(error instanceof Error)) return { message: sanitiseText(String(error)) }
  const code = errorCode(error) ?? systemCode(error)
  const details = error instanceof ShoalError && Object.keys(error.details).length > 0 ? error.details : undefined
  return {
    type: error.name,
    ...(code === undefined ? {} : { code }),
    message: sanitiseText(error.message),
    ...(details === undefined ? {} : { details: sanitise(details, depth - 1) }),
  }
}

function causesOf(error: Error): unknown[] {
  const causes: unknown[] = []
  let next: unknown = causeOf(error)
  while (next !== undefined && next !== error && !causes.includes(next) && causes.length < MAX_CAUSES) {
    causes.push(next)
    next = next instanceof Error ? causeOf(next) : undefined
  }
  return causes
}

/** Of several failures at once the first stands for all. */
function causeOf(error: Error): unknown {
  return error instanceof AggregateError ? (error.cause ?? error.errors[0]) : error.cause
}
