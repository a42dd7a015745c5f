import { LRUCache } from 'lru-cache'
import { ShoalError, type Clock, type Visibility } from '../../core/index.ts'
import { localAddressOf } from '../net/local-address.ts'
import { upTo } from '../up-to.ts'

/** Hops after which a chain of redirects is given up. */
export const MAX_REDIRECTS = 5
/** Signed URLs live for 5 to 20 minutes at the usual registries; a repository that turned private must not be read much longer than this. */
const KEEP_MS = 3 * 60_000
const MAX_KEPT = 4096

const REDIRECTS = new Set([301, 302, 303, 307, 308])
/** How a server that signed a URL says that the URL is of no use any longer. */
const REFUSALS = new Set([400, 401, 403, 404, 410])

export function isRedirect(status: number): boolean {
  return REDIRECTS.has(status)
}

export function isRefusalOfUrl(status: number): boolean {
  return REFUSALS.has(status)
}

/**
 * Where an answer from `from` leads. Throws ERR_UPSTREAM_STATUS when that is no place to go: no usable URL, another scheme than http(s),
 * plain http although the registry is not, or a loopback or link-local address although the registry's is not of that kind. The message
 * never holds the URL, which may be signed.
 */
export function resolveRedirect(
  from: URL,
  status: number,
  location: string | undefined,
  options: { readonly registry: URL },
): URL {
  const refuse = (why: string): ShoalError =>
    new ShoalError('ERR_UPSTREAM_STATUS', `${from.host} answered ${status} ${why}`, {
      details: { host: from.host, status },
    })
  if (location === undefined || !URL.canParse(location, from.href)) throw refuse('without a usable Location')
  const url = new URL(location, from)
  const { registry } = options
  if (url.protocol === 'http:' && registry.protocol !== 'http:') throw refuse('and leads from https to http')
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw refuse('and leads to another protocol')
  const local = localAddressOf(url)
  if (local !== undefined && local !== localAddressOf(registry)) throw refuse(`and leads to a ${local} address`)
  return url
}

/** The end of a chain of redirects, and by whose right it was reached. */
export interface KeptRedirect {
  readonly url: URL
  readonly visibility: Visibility
}

/** The final, signed URL of each blob, for a few minutes, so that the next range need not ask the registry. In memory only. */
export class RedirectMemory {
  readonly #kept: LRUCache<string, KeptRedirect>

  constructor(deps: { readonly clock: Clock }) {
    this.#kept = new LRUCache({
      ...upTo(MAX_KEPT),
      ttl: KEEP_MS,
      ttlResolution: 0,
      perf: { now: () => deps.clock.now() },
    })
  }

  /** `key` says whose right it is, besides which blob: a URL signed for one caller is not for another. */
  get(key: string): KeptRedirect | undefined {
    return this.#kept.get(key)
  }

  keep(key: string, redirect: KeptRedirect): void {
    this.#kept.set(key, redirect)
  }

  drop(key: string): void {
    this.#kept.delete(key)
  }
}
