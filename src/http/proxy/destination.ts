import { isRepositoryName, normaliseRegistry, tryParseDigest } from '../../core/index.ts'
import type { NamedBlob } from '../blob-route.ts'
import { parseUrl } from '../target.ts'

/** No user, no percent-encoding, no other alphabets: what a client may call a host is what will be looked up. */
const HOST = String.raw`(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])`
const ABSOLUTE = new RegExp(`^https?://${HOST}(?::[0-9]{1,5})?(?:[/?#]|$)`, 'i')
const HOST_AND_PORT = new RegExp(`^${HOST}:[0-9]{1,5}$`, 'i')
const DEFAULT_PORTS: Readonly<Record<string, number>> = { 'http:': 80, 'https:': 443 }

/**
 * An absolute http or https URL, in its normal form: lower-case host without a final dot, numeric hosts as addresses, no default port, no
 * dot segments, no fragment. Undefined: it is none, or it carries credentials.
 */
export function parseDestination(text: string): URL | undefined {
  if (!ABSOLUTE.test(text) || !URL.canParse(text)) return undefined
  const url = new URL(text)
  url.hash = ''
  if (url.hostname.endsWith('.')) url.hostname = url.hostname.slice(0, -1)
  return url.hostname === '' || url.hostname.endsWith('.') || url.port === '0' ? undefined : url
}

/** The target of a CONNECT, `host:port` or `[v6]:port`, as `https://host[:port]/`. Undefined: it is none. */
export function parseTunnelTarget(text: string): URL | undefined {
  return HOST_AND_PORT.test(text) ? parseDestination(`https://${text}/`) : undefined
}

/** Where to connect to: a name or an address without brackets, and the port. */
export function endpointOf(url: URL): { readonly host: string; readonly port: number } {
  const port = url.port === '' ? (DEFAULT_PORTS[url.protocol] ?? 0) : Number(url.port)
  return { host: url.hostname.replace(/^\[(.*)\]$/, '$1'), port }
}

/** What `/v2/<name>/blobs/<digest>` at some host names. Undefined: the URL is no such path. */
export function blobOf(url: URL): NamedBlob | undefined {
  const registry = normaliseRegistry(url.host)
  const target = targetOf(url)
  if (registry === undefined || target?.kind !== 'blob') return undefined
  const { repository, digest } = target
  if (!isRepositoryName(repository) || tryParseDigest(digest) === undefined) return undefined
  return { registry, repository, digest }
}

function targetOf(url: URL): ReturnType<typeof parseUrl>['target'] | undefined {
  try {
    return parseUrl(url.pathname).target
  } catch {
    return undefined
  }
}

/** Whether one of `patterns` names the host of `url`: `name`, `*.suffix` or `*`, each with `:port` or for every port. */
export function namesHost(patterns: readonly string[], url: URL): boolean {
  return patterns.some(pattern => {
    const [, name = '', port] = /^(\[[^\]]*\]|[^:]*)(?::(\d+))?$/.exec(pattern.toLowerCase()) ?? []
    if (port !== undefined && Number(port) !== endpointOf(url).port) return false
    return name === '*' || (name.startsWith('*.') ? url.hostname.endsWith(name.slice(1)) : url.hostname === name)
  })
}
