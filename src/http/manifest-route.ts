import type { IncomingMessage, ServerResponse } from 'node:http'
import { parseReference, parseRepositoryName } from '../core/index.ts'
import type { ManifestAnswer, ManifestReader } from '../blobs/index.ts'
import { etagOf, listMatches, safeMediaType } from './blob-headers.ts'
import { sendError, unknownManifest } from './registry-error.ts'

export interface ManifestRequest {
  readonly repository: string
  readonly reference: string
  readonly registry: string
  readonly namespace: string | undefined
}

const CACHE_WORD: Readonly<Record<ManifestAnswer['from'], string>> = {
  cache: 'hit',
  revalidated: 'hit',
  stale: 'hit',
  origin: 'miss',
}

/** HEAD and GET of manifests. Rejects only while nothing has been sent. */
export async function handleManifest(
  manifests: ManifestReader,
  request: IncomingMessage,
  response: ServerResponse,
  asked: ManifestRequest,
  signal: AbortSignal,
): Promise<void> {
  const reference = parseReference(asked.reference)
  const key = { registry: asked.registry, repository: parseRepositoryName(asked.repository), reference }
  const { accept, authorization } = request.headers
  const answer = await manifests.get(key, {
    signal,
    ...(accept === undefined ? {} : { accept }),
    ...(authorization === undefined ? {} : { authorization }),
  })
  if (answer === undefined) {
    sendError(response, unknownManifest(asked.reference))
    return
  }
  const etag = etagOf(answer.digest)
  const headers = [
    'Docker-Content-Digest',
    answer.digest,
    'ETag',
    etag,
    'Docker-Distribution-Api-Version',
    'registry/2.0',
  ]
  headers.push('X-Cache', CACHE_WORD[answer.from])
  if (asked.namespace !== undefined) headers.push('OCI-Namespace', asked.namespace)
  // RFC 9111 retired the numbers, but "110 - response is stale" is what tools look for.
  if (answer.from === 'stale')
    headers.push('Warning', '110 shoal "the origin cannot be asked; this is the last known answer"')
  if (listMatches(request.headers['if-none-match'] ?? '', etag)) {
    response.writeHead(304, headers).end()
    return
  }
  headers.push('Content-Type', safeMediaType(answer.mediaType), 'Content-Length', String(answer.size))
  response.writeHead(200, headers)
  response.end(request.method === 'HEAD' ? undefined : answer.body)
}
