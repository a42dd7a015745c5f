import { STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { errorCode, type ErrorCode } from '../../core/index.ts'
import { answerFor, sendError, type ErrorAnswer } from '../registry-error.ts'
import { hasBody } from './headers.ts'
import type { ProxyOutcome } from './metrics.ts'

const BY_US = { 'X-Dragonfly-Error-Type': 'proxy' }
/** How long a refused client may take to read why. */
const LINGER_MS = 5000

/** An answer of the proxy's own, and how it is counted. */
export interface Refusal {
  readonly outcome: ProxyOutcome
  readonly answer: ErrorAnswer
}

export const UNAUTHORISED: Refusal = {
  outcome: 'unauthorised',
  answer: {
    status: 407,
    code: 'UNAUTHORIZED',
    message: 'this proxy wants a user name and a password',
    headers: { 'Proxy-Authenticate': 'Basic realm="shoal"', ...BY_US },
  },
}

export const DENIED: Refusal = {
  outcome: 'denied',
  answer: { status: 403, code: 'DENIED', message: 'a rule of this proxy denies this URL', headers: BY_US },
}

export const MALFORMED: Refusal = {
  outcome: 'malformed',
  answer: {
    status: 400,
    code: 'UNSUPPORTED',
    message: 'this proxy takes http and https URLs without credentials, and host:port or [v6]:port for CONNECT',
    headers: BY_US,
  },
}

export const TOO_LONG: Refusal = {
  outcome: 'malformed',
  answer: { status: 414, code: 'UNSUPPORTED', message: 'the URL is longer than this proxy reads', headers: BY_US },
}

export const LOOP: Refusal = {
  outcome: 'loop',
  answer: {
    status: 508,
    code: 'UNSUPPORTED',
    message: 'this request has come through this proxy before',
    headers: BY_US,
  },
}

export const BUSY: Refusal = {
  outcome: 'busy',
  answer: {
    status: 503,
    code: 'UNAVAILABLE',
    message: 'this proxy takes no more tunnels at the moment',
    headers: { 'Retry-After': '1', ...BY_US },
  },
}

/** What a gateway calls these; everything else is as on the pull API. */
const GATEWAY_STATUS: Partial<Record<ErrorCode, number>> = {
  ERR_UPSTREAM_BODY: 502,
  ERR_UPSTREAM_TIMEOUT: 504,
  ERR_UPSTREAM_TRANSPORT: 502,
}

/** For a failure before anything was sent. */
export function refusalOf(error: unknown): Refusal {
  const answer = answerFor(error)
  const code = errorCode(error)
  return {
    outcome: code === 'ERR_ORIGIN_UNKNOWN' ? 'refused' : 'failed',
    answer: { ...answer, status: (code === undefined ? undefined : GATEWAY_STATUS[code]) ?? answer.status },
  }
}

/** In the registry's error format. The body of the request, where there is one, is not waited for. */
export function refuse(request: IncomingMessage, response: ServerResponse, answer: ErrorAnswer): void {
  const headers = hasBody(request) ? { ...answer.headers, Connection: 'close' } : answer.headers
  sendError(response, { ...answer, headers })
}

/** As plain text: whoever asks for a tunnel shows it to a person at most. */
export function refuseConnect(socket: Duplex, { status, message, headers }: ErrorAnswer): void {
  const body = `${message}\n`
  const fields = {
    ...headers,
    'Content-Type': 'text/plain; charset=utf-8',
    'Content-Length': Buffer.byteLength(body),
    Connection: 'close',
  }
  const lines = Object.entries(fields).flatMap(([name, values]) => [values].flat().map(value => `${name}: ${value}`))
  const timer = setTimeout(() => socket.destroy(), LINGER_MS)
  socket.once('close', () => clearTimeout(timer))
  socket.end([`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}`, ...lines, '', body].join('\r\n'))
  // The client's end is noticed only by whoever reads.
  socket.resume()
}
