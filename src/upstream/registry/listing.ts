import { MAX_LISTING_BYTES, type ListingAnswer, type ListingRequest, type SourceOptions } from '../../core/index.ts'
import { bodyError } from '../net/failures.ts'
import type { RegistryClient } from './registry-client.ts'
import { discard, headerOf, readBody, type ResponseHeaders } from '../net/transport.ts'

/** What a client may want to see of the origin's headers. */
const PASSED_HEADERS = ['content-type', 'docker-content-digest', 'etag', 'link', 'oci-filters-applied'] as const

/** `tags/list` or `referrers/<digest>`, passed through as the registry answers it: 404 and other client errors included. */
export async function listFrom(
  client: RegistryClient,
  request: ListingRequest,
  options: SourceOptions,
): Promise<ListingAnswer> {
  const { listing, query, repository } = request
  const path = listing.kind === 'tags' ? 'tags/list' : `referrers/${listing.digest}`
  return client.retries().run(async () => {
    const response = await client.send(
      { method: 'GET', repository, path, query, accept: acceptFor(listing.kind) },
      options,
    )
    const { headers, host, status } = response
    if ((headerOf(headers, 'content-encoding') ?? 'identity').toLowerCase() !== 'identity') {
      discard(response.body)
      throw bodyError(host, 'encodes the content of a listing')
    }
    const body = await readBody(response.body, MAX_LISTING_BYTES, { host, signal: options.signal })
    return { status, headers: passedHeaders(headers, client.base), body }
  }, options)
}

function acceptFor(kind: ListingRequest['listing']['kind']): string {
  return kind === 'tags' ? 'application/json' : 'application/vnd.oci.image.index.v1+json'
}

function passedHeaders(headers: ResponseHeaders, base: URL): Record<string, string> {
  const passed: Record<string, string> = {}
  for (const name of PASSED_HEADERS) {
    const value = headerOf(headers, name)
    if (value !== undefined) passed[name] = name === 'link' ? rewriteLinks(value, base) : value
  }
  return passed
}

/**
 * The targets of a Link header that lie below `base` (the registry's /v2/) as paths that begin with /v2/, so that the next page is asked for
 * where this one was. Others stay as they are.
 */
export function rewriteLinks(link: string, base: URL): string {
  return link.replace(/<([^>]*)>/g, (whole, target: string) => {
    if (!URL.canParse(target, base.href)) return whole
    // A relative target, as sent, says nothing of a host: it is relative to the path of the listing.
    if (target.startsWith('?')) return whole
    const url = new URL(target, base)
    if (url.origin !== base.origin || !url.pathname.startsWith(base.pathname)) return whole
    return `</v2/${url.pathname.slice(base.pathname.length)}${url.search}>`
  })
}
