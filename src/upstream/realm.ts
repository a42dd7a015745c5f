import net from 'node:net'

/** Realms off a registry's own site that are known to be its own: registry host -> realm hosts. */
const KNOWN_REALMS: ReadonlyMap<string, readonly string[]> = new Map([
  ['registry-1.docker.io', ['auth.docker.io']],
  ['lscr.io', ['ghcr.io']],
])

/** Suffixes below which each name belongs to another customer, so that a shared suffix proves nothing. */
const SHARED_SUFFIXES: readonly string[] = [
  'amazonaws.com',
  'appspot.com',
  'azurecr.cn',
  'azurecr.io',
  'azurewebsites.net',
  'cloudfront.net',
  'github.io',
  'gitlab.io',
  'googleapis.com',
  'herokuapp.com',
  'ngrok.io',
  'run.app',
  'windows.net',
  'workers.dev',
]

/** Second-level labels under which two-letter domains register names (co.uk, com.au ...). */
const REGISTRY_LABELS = new Set(['ac', 'co', 'com', 'edu', 'go', 'gov', 'ne', 'net', 'or', 'org'])

/**
 * The URL of a token realm that a registry named, when a credential may be sent there: over https (or http, when the registry itself is
 * plain http or both are this machine), and on the registry's own site or its known realm. Undefined otherwise.
 */
export function trustedRealm(realm: string, registry: URL): URL | undefined {
  if (!URL.canParse(realm)) return undefined
  const url = new URL(realm)
  if (url.username !== '' || url.password !== '') return undefined
  if (!isSchemeTrusted(url, registry)) return undefined
  if (url.hostname === registry.hostname) return url
  if (KNOWN_REALMS.get(registry.hostname)?.includes(url.hostname) === true) return url
  const site = siteOf(registry.hostname)
  return site !== undefined && site === siteOf(url.hostname) ? url : undefined
}

function isSchemeTrusted(realm: URL, registry: URL): boolean {
  if (realm.protocol === 'https:') return true
  if (realm.protocol !== 'http:') return false
  return registry.protocol === 'http:' || (isLoopback(realm.hostname) && isLoopback(registry.hostname))
}

function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || (net.isIPv4(hostname) && hostname.startsWith('127.'))
}

/** The registrable domain of a host name, near enough. Undefined for addresses, single labels and shared suffixes: only the very host is trusted. */
function siteOf(hostname: string): string | undefined {
  if (hostname.startsWith('[') || net.isIPv4(hostname)) return undefined
  if (SHARED_SUFFIXES.some(suffix => hostname === suffix || hostname.endsWith(`.${suffix}`))) return undefined
  const labels = hostname.split('.')
  const [second = '', top = ''] = labels.slice(-2)
  const length = top.length === 2 && REGISTRY_LABELS.has(second) ? 3 : 2
  return labels.length < length ? undefined : labels.slice(-length).join('.')
}
