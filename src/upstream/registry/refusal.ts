import type { SourceOptions } from '../../core/index.ts'
import { headerValues, readBody, type ResponseBody, type TransportResponse } from '../net/transport.ts'

/** Enough for an error in the registry's format. */
const MAX_BODY_BYTES = 2 * 1024
const MIN_PASSWORD_LENGTH = 8

/** What a registry said with a 401 or 403, to be passed on. */
export interface Refusal {
  readonly status: number
  /** The values of WWW-Authenticate, untouched. */
  readonly challenges: readonly string[]
  readonly body?: string
}

/** Reads a refusal to its end. What repeats the credential that was sent is left out, since errors are logged. */
export async function readRefusal(
  answer: { readonly response: TransportResponse; readonly url: URL },
  credential: string | undefined,
  options: SourceOptions,
): Promise<Refusal> {
  const { body: stream, headers, status } = answer.response
  const challenges = headerValues(headers, 'www-authenticate').filter(value => !reveals(value, credential))
  const body = await readText(stream, answer.url.host, options)
  return { status, challenges, ...(body === undefined || reveals(body, credential) ? {} : { body }) }
}

/** The status is what matters: a body that cannot be had is none. */
async function readText(body: ResponseBody, host: string, options: SourceOptions): Promise<string | undefined> {
  try {
    const text = await readBody(body, MAX_BODY_BYTES, { host, signal: options.signal })
    return text.length > 0 ? text.toString('utf8') : undefined
  } catch {
    options.signal?.throwIfAborted()
    return undefined
  }
}

/**
 * Whether `text` holds the secret part of an Authorization header: as sent or, for Basic, decoded. Short passwords are words that appear
 * anywhere (a realm's name), so they prove nothing.
 */
function reveals(text: string, authorization: string | undefined): boolean {
  if (authorization === undefined) return false
  const space = authorization.indexOf(' ')
  const secret = authorization.slice(space + 1)
  if (secret !== '' && text.includes(secret)) return true
  if (authorization.slice(0, Math.max(0, space)).toLowerCase() !== 'basic') return false
  const decoded = Buffer.from(secret, 'base64').toString('utf8')
  const password = decoded.slice(decoded.indexOf(':') + 1)
  return password.length >= MIN_PASSWORD_LENGTH && text.includes(password)
}
