import type { IncomingMessage, ServerResponse } from 'node:http'
import { ShoalError, normaliseRegistry, parseDigest, type Logger } from '../core/index.ts'
import type { BlobReader, ManifestReader, Sources } from '../blobs/index.ts'
import { BlobRoute } from './blob-route.ts'
import { handleListing } from './listing-route.ts'
import { handleManifest } from './manifest-route.ts'
import type { HttpMetrics } from './metrics.ts'
import { METHOD_NOT_ALLOWED, NOT_A_ROUTE, answerFor, sendError } from './registry-error.ts'
import { parseUrl, type ParsedUrl, type Target } from './target.ts'

export interface MirrorDeps {
  readonly reader: BlobReader
  readonly manifests: ManifestReader
  readonly sources: Sources
  readonly metrics: HttpMetrics
  readonly log: Logger
}

export interface MirrorOptions {
  /** For requests that name no registry. */
  readonly defaultRegistry: string
  readonly accessLog: boolean
}

/**
 * The pull side of the registry API. It sits directly on node:http, because every framework layer costs a warm range a measurable part of
 * its time (docs/decisions/0002).
 */
export class Mirror {
  readonly #deps: MirrorDeps
  readonly #options: MirrorOptions
  readonly #blobs: BlobRoute

  constructor(deps: MirrorDeps, options: MirrorOptions) {
    this.#deps = deps
    this.#options = options
    this.#blobs = new BlobRoute(deps)
  }

  /** A request listener. Never throws and never rejects: every failure becomes an answer, or a destroyed connection. */
  readonly handle = (request: IncomingMessage, response: ServerResponse): void => {
    const began = performance.now()
    const abort = new AbortController()
    let route: Target['kind'] = 'unknown'
    response.once('close', () => {
      if (!response.writableFinished) abort.abort(new DOMException('the client has left', 'AbortError'))
      this.#account(request, response, route, began)
    })
    try {
      const parsed = parseUrl(request.url ?? '/')
      route = parsed.target.kind
      this.#route(request, response, parsed, abort.signal)?.catch((error: unknown) =>
        this.#fail(response, error, abort.signal),
      )
    } catch (error: unknown) {
      this.#fail(response, error, abort.signal)
    }
  }

  #route(
    request: IncomingMessage,
    response: ServerResponse,
    parsed: ParsedUrl,
    signal: AbortSignal,
  ): Promise<void> | undefined {
    const { target, namespace, query } = parsed
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      sendError(response, METHOD_NOT_ALLOWED)
      return undefined
    }
    switch (target.kind) {
      case 'base':
        sendBase(response)
        return undefined
      case 'blob':
        return this.#blobs.handle(
          request,
          response,
          { ...target, registry: this.#registry(namespace), namespace },
          signal,
        )
      case 'manifest': {
        const asked = { ...target, registry: this.#registry(namespace), namespace }
        return handleManifest(this.#deps.manifests, request, response, asked, signal)
      }
      case 'tags':
      case 'referrers': {
        const listing =
          target.kind === 'tags' ? { kind: target.kind } : { kind: target.kind, digest: parseDigest(target.digest) }
        const asked = { registry: this.#registry(namespace), repository: target.repository, listing, query, namespace }
        return handleListing(this.#deps.sources, request, response, asked, signal)
      }
      case 'upload':
        sendError(response, METHOD_NOT_ALLOWED)
        return undefined
      case 'unknown':
        sendError(response, NOT_A_ROUTE)
        return undefined
    }
  }

  /** A name from the outside is a key into the table, never an address to dial. */
  #registry(namespace: string | undefined): string {
    const name = normaliseRegistry(namespace ?? this.#options.defaultRegistry)
    if (name !== undefined) return name
    throw new ShoalError('ERR_ORIGIN_UNKNOWN', `"${(namespace ?? '').slice(0, 200)}" is not a registry name`)
  }

  #fail(response: ServerResponse, error: unknown, signal: AbortSignal): void {
    if (signal.aborted || response.destroyed) return
    if (response.headersSent) {
      this.#deps.log.warn({ err: error }, 'answer cut')
      response.destroy()
      return
    }
    const answer = answerFor(error)
    if (answer.status >= 500) this.#deps.log.warn({ status: answer.status, err: error }, 'request failed')
    for (const name of response.getHeaderNames()) response.removeHeader(name)
    sendError(response, answer)
  }

  #account(request: IncomingMessage, response: ServerResponse, route: Target['kind'], began: number): void {
    const { metrics, log } = this.#deps
    const seconds = (performance.now() - began) / 1000
    metrics.requests.inc({ route, status: response.statusCode })
    metrics.seconds.observe({ route }, seconds)
    if (!this.#options.accessLog) return
    log.info(
      {
        method: request.method,
        path: (request.url ?? '').split('?')[0],
        status: response.statusCode,
        complete: response.writableFinished,
        seconds,
        agent: request.headers['user-agent'],
        client: request.socket.remoteAddress,
      },
      'access',
    )
  }
}

function sendBase(response: ServerResponse): void {
  response.writeHead(200, {
    'Content-Type': 'application/json',
    'Content-Length': 2,
    'Docker-Distribution-Api-Version': 'registry/2.0',
  })
  response.end('{}')
}
