import type { IncomingMessage, ServerResponse } from 'node:http'
import { parseRepositoryName, type ListingRequest } from '../core/index.ts'
import { originOrThrow, type Sources } from '../blobs/index.ts'

/** tags/list and referrers: passed through to the origin, and its answer passed back. Rejects only while nothing has been sent. */
export async function handleListing(
  sources: Sources,
  request: IncomingMessage,
  response: ServerResponse,
  asked: ListingRequest & { readonly namespace: string | undefined },
  signal: AbortSignal,
): Promise<void> {
  const origin = originOrThrow(sources, asked.registry)
  const { authorization } = request.headers
  const { namespace, ...rest } = asked
  const listing = { ...rest, repository: parseRepositoryName(asked.repository) }
  const answer = await origin.list(listing, { signal, ...(authorization === undefined ? {} : { authorization }) })
  for (const [name, value] of Object.entries(answer.headers)) {
    response.setHeader(name, name === 'link' && namespace !== undefined ? withNamespace(value, namespace) : value)
  }
  response.setHeader('Content-Length', answer.body.length)
  response.setHeader('Docker-Distribution-Api-Version', 'registry/2.0')
  response.statusCode = answer.status
  response.end(request.method === 'HEAD' ? undefined : answer.body)
}

/** The next page is asked of us as well, so its address has to name the registry as this one did. */
function withNamespace(link: string, namespace: string): string {
  return link.replace(/^<(\/[^>?]*)(\?[^>]*)?>/, (_all, path: string, query: string | undefined) => {
    return `<${path}${query === undefined ? '?' : `${query}&`}ns=${encodeURIComponent(namespace)}>`
  })
}
