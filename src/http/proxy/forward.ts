import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { ShoalError } from '../../core/index.ts'
import type { Egress, ForwardedAnswer, Permission } from './egress.ts'
import { downstreamHeaders, hasBody, upstreamHeaders } from './headers.ts'

/** Answers that end with their head, whatever length it tells (RFC 9112, 6.3). */
const BODILESS: ReadonlySet<number> = new Set([204, 304])

/**
 * Passes a request on as it is, and the answer back, both streaming. Rejects before anything was sent with the egress's errors or
 * ERR_UPSTREAM_BODY, afterwards with the failure of the body; the response is then destroyed.
 */
export async function forward(
  { egress, via }: { egress: Egress; via: string },
  request: IncomingMessage,
  response: ServerResponse,
  { url, trusted, allowed }: Permission & { readonly url: URL },
  signal: AbortSignal,
): Promise<void> {
  const answer = await egress.forward({
    method: request.method ?? 'GET',
    url,
    headers: upstreamHeaders(request.rawHeaders, { host: url.host, via }),
    body: hasBody(request) ? bodyOf(request) : undefined,
    trusted,
    allowed,
    signal,
  })
  sendHead(response, answer, via)
  if (BODILESS.has(answer.status)) {
    // The length that a 304 tells is that of another answer: the egress may miss the bytes.
    answer.body.on('error', () => undefined).resume()
    response.end()
  } else await pipeline(answer.body, response)
}

/** Whoever gives up on this body leaves the client's connection alone: it still has an answer to carry. */
function bodyOf(request: IncomingMessage): Readable {
  const body = Readable.from(request.iterator({ destroyOnReturn: false }), { objectMode: false })
  // The client may leave when the egress, answered early, no longer listens.
  body.on('error', () => undefined)
  return body
}

function sendHead(response: ServerResponse, { status, statusText, headers, body }: ForwardedAnswer, via: string): void {
  // Only the origin knows when it answered.
  response.sendDate = false
  try {
    response.writeHead(status, statusText, downstreamHeaders(headers, { via }))
  } catch (error: unknown) {
    body.on('error', () => undefined).destroy()
    response.statusMessage = ''
    response.sendDate = true
    throw new ShoalError('ERR_UPSTREAM_BODY', 'the origin answered with a head that cannot be passed on', {
      cause: error,
    })
  }
}
