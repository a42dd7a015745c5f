import net from 'node:net'
import { localAddressOf } from '../net/local-address.ts'

/** Realms off a registry's own site that are known to be its own: registry host -> realm hosts. */
const KNOWN_REALMS: ReadonlyMap<string, readonly string[]> = new Map([
  ['registry-1.docker.io', ['auth.docker.io']],
  ['lscr.io', ['ghcr.io']],
])

/**
 * Suffixes below which each name belongs to another customer, so that a shared suffix proves nothing: registries, buckets of objects
 * (which anybody may make answer like a token service), and hosted sites and functions.
 */
const SHARED_SUFFIXES: readonly string[] = [
  'aliyuncs.com',
  'amazonaws.com',
  'amazonaws.com.cn',
  'appdomain.cloud',
  'appspot.com',
  'azurecr.cn',
  'azurecr.io',
  'azurecr.us',
  'azureedge.net',
  'azurefd.net',
  'azurestaticapps.net',
  'azurewebsites.net',
  'backblazeb2.com',
  'chinacloudapi.cn',
  'cloudapp.azure.com',
  'cloudapp.net',
  'cloudflarestorage.com',
  'cloudfront.net',
  'cloudfunctions.net',
  'deno.dev',
  'digitaloceanspaces.com',
  'elasticbeanstalk.com',
  'firebaseapp.com',
  'fly.dev',
  'github.io',
  'gitlab.io',
  'googleapis.com',
  'herokuapp.com',
  'jfrog.io',
  'linodeobjects.com',
  'myhuaweicloud.com',
  'myqcloud.com',
  'netlify.app',
  'ngrok-free.app',
  'ngrok.app',
  'ngrok.io',
  'on.aws',
  'onrender.com',
  'pages.dev',
  'pkg.dev',
  'r2.dev',
  'run.app',
  'tencentcloudcr.com',
  'trafficmanager.net',
  'trycloudflare.com',
  'vercel.app',
  'vultrobjects.com',
  'wasabisys.com',
  'web.app',
  'windows.net',
  'workers.dev',
]

/** A region of Alibaba Cloud as a label. Buckets are below others: `<bucket>.oss-<region>.aliyuncs.com`. */
const ALIYUN_REGION = '[a-z]{2}-[a-z0-9-]+'
/** Its container registries: shared ones, instances of customers, and the one of its Kubernetes service. */
const ALIYUN_REGISTRY = new RegExp(
  `^(?:registry(?:-[a-z0-9-]+)?(?:\\.${ALIYUN_REGION})?(?:\\.ack)?|[a-z0-9-]+\\.${ALIYUN_REGION}(?:\\.personal)?\\.cr)\\.aliyuncs\\.com$`,
)
/** Their token services, which need not be in the registry's own region. */
const ALIYUN_REALM = new RegExp(`^dockerauth(?:-[a-z0-9-]+)?(?:\\.${ALIYUN_REGION})?\\.aliyuncs\\.com$`)

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
  if (ALIYUN_REGISTRY.test(registry.hostname) && ALIYUN_REALM.test(url.hostname)) return url
  const site = siteOf(registry.hostname)
  return site !== undefined && site === siteOf(url.hostname) ? url : undefined
}

function isSchemeTrusted(realm: URL, registry: URL): boolean {
  if (realm.protocol === 'https:') return true
  if (realm.protocol !== 'http:') return false
  return registry.protocol === 'http:' || (isLoopback(realm) && isLoopback(registry))
}

function isLoopback(url: URL): boolean {
  return localAddressOf(url) === 'loopback'
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
