import type { ServerResponse } from 'node:http'
import { ShoalError, describeError, type ErrorDetails, type Logger } from '../core/index.ts'

/** Codes of OCI distribution-spec 1.1, "Error Codes", and UNAVAILABLE, which the reference registry adds. */
export type RegistryCode =
  | 'BLOB_UNKNOWN'
  | 'DENIED'
  | 'DIGEST_INVALID'
  | 'MANIFEST_UNKNOWN'
  | 'NAME_INVALID'
  | 'RANGE_INVALID'
  | 'TOOMANYREQUESTS'
  | 'UNAUTHORIZED'
  | 'UNAVAILABLE'
  | 'UNKNOWN'
  | 'UNSUPPORTED'

export interface ErrorAnswer {
  readonly status: number
  readonly code: RegistryCode
  readonly message: string
  readonly headers: Readonly<Record<string, string | readonly string[]>>
}

const RETRY_SECONDS = '1'

/** Who says no: we, by choice; the origin; or we, because something failed. nydusd acts on the first with 403 and 429. */
const BY_US = { 'X-Dragonfly-Error-Type': 'proxy' }
const BY_ORIGIN = { 'X-Dragonfly-Error-Type': 'backend' }
const BY_FAILURE = { 'X-Dragonfly-Error-Type': 'dfdaemon' }

/** The answer for a failure that happened before any byte of the answer was sent. Clients fall back to the origin on 5xx and on nothing else. */
export function answerFor(error: unknown): ErrorAnswer {
  if (!(error instanceof ShoalError))
    return { status: 500, code: 'UNKNOWN', message: 'internal error', headers: BY_FAILURE }
  const { details, message } = error
  switch (error.code) {
    case 'ERR_DIGEST_INVALID':
      return { status: 400, code: 'DIGEST_INVALID', message, headers: {} }
    case 'ERR_NAME_INVALID':
      return { status: 400, code: 'NAME_INVALID', message, headers: {} }
    case 'ERR_REFERENCE_INVALID':
      return { status: 404, code: 'MANIFEST_UNKNOWN', message, headers: {} }
    case 'ERR_RANGE_UNSATISFIABLE':
      return {
        status: 416,
        code: 'RANGE_INVALID',
        message,
        headers: { 'Content-Range': `bytes */${String(details['size'])}` },
      }
    case 'ERR_ORIGIN_UNKNOWN':
      return { status: 403, code: 'DENIED', message, headers: BY_US }
    case 'ERR_UPSTREAM_AUTH':
      return refusedByOrigin(message, details)
    case 'ERR_UPSTREAM_STATUS':
      return statusOfOrigin(message, details)
    case 'ERR_BLOB_UNAVAILABLE':
      return details['absent'] === true
        ? { status: 404, code: 'BLOB_UNKNOWN', message, headers: BY_ORIGIN }
        : unavailable(error)
    default:
      return unavailable(error)
  }
}

function unavailable(error: ShoalError): ErrorAnswer {
  const headers = { 'Retry-After': RETRY_SECONDS, ...BY_FAILURE }
  return { status: 503, code: 'UNAVAILABLE', message: describeError(error), headers }
}

/** The origin's refusal and its challenge, untouched, so that the client can fetch its own token. */
function refusedByOrigin(message: string, details: ErrorDetails): ErrorAnswer {
  const status = details['status'] === 403 ? 403 : 401
  const challenge = details['wwwAuthenticate']
  const values = Array.isArray(challenge) ? challenge.filter(value => typeof value === 'string') : []
  return {
    status,
    code: status === 403 ? 'DENIED' : 'UNAUTHORIZED',
    message,
    headers: { ...BY_ORIGIN, ...(values.length > 0 ? { 'WWW-Authenticate': values } : {}) },
  }
}

function statusOfOrigin(message: string, details: ErrorDetails): ErrorAnswer {
  const status = Number(details['status'])
  const retryAfter = typeof details['retryAfter'] === 'string' ? details['retryAfter'] : RETRY_SECONDS
  const later = { 'Retry-After': retryAfter, ...BY_ORIGIN }
  if (status === 429) return { status, code: 'TOOMANYREQUESTS', message, headers: later }
  if (status === 404) return { status, code: 'BLOB_UNKNOWN', message, headers: BY_ORIGIN }
  // 416 to a range that lay within the size it told before says that something else is wrong there.
  if (status >= 400 && status < 500 && status !== 416) return { status, code: 'DENIED', message, headers: BY_ORIGIN }
  return { status: 503, code: 'UNAVAILABLE', message, headers: later }
}

export const METHOD_NOT_ALLOWED: ErrorAnswer = {
  status: 405,
  code: 'UNSUPPORTED',
  message: 'this is a mirror for pulls: push to the registry itself',
  // The body of a push is not read, so the connection cannot be used again.
  headers: { Allow: 'GET, HEAD', Connection: 'close' },
}

/** Containerd's configuration may name this daemon as the mirror of a registry, and this daemon may read that too. */
export const LOOP: ErrorAnswer = {
  status: 508,
  code: 'UNSUPPORTED',
  message: 'this request comes from this daemon itself: it is configured as its own mirror or registry',
  headers: {},
}

export const NOT_A_ROUTE: ErrorAnswer = {
  status: 404,
  code: 'UNSUPPORTED',
  message:
    'this is neither a path of the pull API (/v2/<name>/blobs|manifests|tags|referrers/...) nor a blob below a configured prefix',
  headers: {},
}

export const NOT_A_PROXY: ErrorAnswer = {
  status: 404,
  code: 'UNSUPPORTED',
  message: 'this is no forward proxy: ask it for paths of the pull API (/v2/...)',
  headers: {},
}

/** A request that said to ask no source, for bytes that are not all here. */
export function notStored(digest: string): ErrorAnswer {
  return {
    status: 404,
    code: 'BLOB_UNKNOWN',
    message: `not all of this is here, and X-Dragonfly-Priority 2 asks no source: ${digest}`,
    headers: BY_US,
  }
}

export function unknownBlob(digest: string): ErrorAnswer {
  return { status: 404, code: 'BLOB_UNKNOWN', message: `the origin does not have ${digest}`, headers: BY_ORIGIN }
}

export function unknownManifest(reference: string): ErrorAnswer {
  return { status: 404, code: 'MANIFEST_UNKNOWN', message: `the origin does not have ${reference}`, headers: BY_ORIGIN }
}

/** Sends `answer` in the registry's error format. Without a body for HEAD. */
export function sendError(response: ServerResponse, answer: ErrorAnswer): void {
  const body = Buffer.from(JSON.stringify({ errors: [{ code: answer.code, message: answer.message }] }))
  for (const [name, value] of Object.entries(answer.headers)) response.setHeader(name, value)
  response.statusCode = answer.status
  response.setHeader('Content-Type', 'application/json')
  response.setHeader('Content-Length', body.length)
  response.setHeader('Docker-Distribution-Api-Version', 'registry/2.0')
  response.end(response.req.method === 'HEAD' ? undefined : body)
}

/** What becomes of a failure: an answer while nothing has been sent, a destroyed connection afterwards, nothing for a client that has left. */
export function answerFailure(
  response: ServerResponse,
  error: unknown,
  { signal, log }: { readonly signal: AbortSignal; readonly log: Logger },
): void {
  if (signal.aborted || response.destroyed) return
  if (response.headersSent) {
    log.warn({ err: error }, 'answer cut')
    response.destroy()
    return
  }
  const answer = answerFor(error)
  if (answer.status >= 500) log.warn({ status: answer.status, err: error }, 'request failed')
  for (const name of response.getHeaderNames()) response.removeHeader(name)
  sendError(response, answer)
}
