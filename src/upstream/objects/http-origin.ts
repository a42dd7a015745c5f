import { validateHeaderName, validateHeaderValue } from 'node:http'
import { ShoalError } from '../../core/index.ts'
import { basicAuthorization } from '../auth/credential.ts'
import { createUpstreamMetrics } from '../metrics.ts'
import { readTlsMaterial } from '../net/tls.ts'
import { Transport } from '../net/transport.ts'
import type { ConnectionOptions, ExtraHeaders, HttpOriginConfig, UpstreamDeps } from '../options.ts'
import { configuredUrl } from './configured-url.ts'
import { HttpServer } from './http-server.ts'
import { ObjectOrigin } from './object-origin.ts'

/** Said by every request for itself. */
const OWN_HEADERS = new Set([
  'accept-encoding',
  'connection',
  'content-length',
  'if-match',
  'range',
  'transfer-encoding',
])

/** Where an http origin is. */
interface HttpPlace {
  /** Ends with a slash. */
  readonly base: URL
  readonly socketPath?: string
}

/**
 * Any HTTP server, whose answer for `<url>/<hex>` is the blob; or one behind a unix socket, whose answer for `/` is. What needs a credential,
 * a header of the configuration or a socket is shared, all else public. Nothing is asked of it before it is needed. Throws
 * ERR_CONFIG_INVALID.
 */
export async function openHttpOrigin(
  deps: UpstreamDeps,
  options: HttpOriginConfig & ConnectionOptions & { readonly name: string },
): Promise<ObjectOrigin> {
  const { clock } = deps
  const { name, retries, url } = options
  const { base, socketPath } = placeOf(name, url)
  const headers = headersOf(options)
  const tls = await readTlsMaterial(options.tls)
  const metrics = createUpstreamMetrics(deps.metrics)
  const transport = new Transport({ clock, metrics }, { ...options, kind: 'http', base, tls, socketPath })
  const isOpen = socketPath === undefined && Object.keys(headers).length === 0
  const server = new HttpServer(
    { transport },
    { base, headers, named: socketPath === undefined, visibility: isOpen ? 'public' : 'shared' },
  )
  const log = deps.log.child({ origin: name })
  return new ObjectOrigin({ clock, log, metrics, server }, { name: `http:${name}`, retries })
}

function placeOf(name: string, text: string): HttpPlace {
  const refuse = (why: string): ShoalError => new ShoalError('ERR_CONFIG_INVALID', `origins."${name}".url ${why}`)
  if (text.startsWith('unix:')) {
    const socketPath = text.slice('unix:'.length)
    if (!socketPath.startsWith('/')) throw refuse('must have an absolute path after "unix:"')
    return { base: new URL('http://localhost/'), socketPath }
  }
  const base = configuredUrl(text, refuse)
  base.pathname = `${base.pathname.replace(/\/+$/, '')}/`
  return { base }
}

/** By lower-case name, the credential among them. */
function headersOf({
  headers,
  name,
  password,
  username,
}: Pick<HttpOriginConfig, 'headers' | 'password' | 'username'> & { readonly name: string }): ExtraHeaders {
  const refuse = (key: string, why: string): ShoalError =>
    new ShoalError('ERR_CONFIG_INVALID', `origins."${name}".${key} ${why}`)
  const all: Record<string, readonly string[]> = {}
  for (const [key, values] of Object.entries(headers)) {
    const lower = key.toLowerCase()
    if (!isHeader(lower, values)) throw refuse('headers', 'has a name or a value that HTTP does not allow')
    if (OWN_HEADERS.has(lower)) throw refuse('headers', `must not set ${lower}`)
    all[lower] = values
  }
  if (username === undefined && password === undefined) return all
  if (username === undefined || password === undefined) throw refuse('username', 'needs password_file, and it username')
  if (all['authorization'] !== undefined) throw refuse('headers', 'must not set authorization beside username')
  return { ...all, authorization: [basicAuthorization({ kind: 'password', username, password })] }
}

function isHeader(name: string, values: readonly string[]): boolean {
  try {
    validateHeaderName(name)
    for (const value of values) validateHeaderValue(name, value)
    return true
  } catch {
    return false
  }
}
