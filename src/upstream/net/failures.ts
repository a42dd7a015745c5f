import { parseRetryAfter, ShoalError, systemCode } from '../../core/index.ts'

const TIMEOUTS = new Set(['UND_ERR_CONNECT_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT', 'ETIMEDOUT'])

/** What the HTTP client threw, as one of ours. Errors of Shoal pass unchanged. Never a path or a query: they may be signed. */
export function transportError(error: unknown, host: string): ShoalError {
  if (error instanceof ShoalError) return error
  const code = systemCode(error) ?? 'unknown'
  const kind = TIMEOUTS.has(code) ? 'ERR_UPSTREAM_TIMEOUT' : 'ERR_UPSTREAM_TRANSPORT'
  const what = kind === 'ERR_UPSTREAM_TIMEOUT' ? 'did not answer in time' : 'could not be talked to'
  // A parser error quotes what the origin sent, which is not for logs.
  const cause = code.startsWith('HPE_') ? undefined : error
  return new ShoalError(kind, `${host} ${what} (${code})`, { cause, details: { host, cause: code } })
}

/** An answer that is no success. `retryAfter` is the header as it came, kept only where it can be read. */
export function statusError(host: string, status: number, retryAfter?: string): ShoalError {
  const readable = parseRetryAfter(retryAfter, 0) === undefined ? {} : { retryAfter }
  return new ShoalError('ERR_UPSTREAM_STATUS', `${host} answered ${status}`, { details: { host, status, ...readable } })
}

/** An answer whose bytes are not the ones asked for. */
export function bodyError(host: string, what: string, details: Readonly<Record<string, unknown>> = {}): ShoalError {
  return new ShoalError('ERR_UPSTREAM_BODY', `${host} ${what}`, { details: { host, ...details } })
}
