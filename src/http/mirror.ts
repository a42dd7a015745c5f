import type { IncomingMessage, ServerResponse } from 'node:http'
import { LRUCache } from 'lru-cache'
import { ShoalError, normaliseRegistry, parseDigest, type Logger } from '../core/index.ts'
import type { BlobReader, ManifestReader, Sources } from '../blobs/index.ts'
import { BlobRoute, askedBlob, type AskedBlob } from './blob-route.ts'
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

const MAX_ASKED = 2000
/** What nginx logs for a client that left before it was answered. */
const CLIENT_LEFT = 499
/** For answers that nobody can abort, because they are given at once. */
const NEVER = new AbortController().signal

/**
 * The pull side of the registry API. It sits directly on node:http, because every framework layer costs a warm range a measurable part of
 * its time (docs/decisions/0002).
 */
export class Mirror {
  readonly #deps: MirrorDeps
  readonly #options: MirrorOptions
  readonly #blobs: BlobRoute
  /** Blobs by the URLs that they were asked for by: parsing and checking a URL costs more than answering it. */
  readonly #asked = new LRUCache<string, AskedBlob>({ max: MAX_ASKED })

  constructor(deps: MirrorDeps, options: MirrorOptions) {
    this.#deps = deps
    this.#options = options
    this.#blobs = new BlobRoute(deps)
  }

  /** A request listener. Never throws and never rejects: every failure becomes an answer, or a destroyed connection. */
  readonly handle = (request: IncomingMessage, response: ServerResponse): void => {
    // A pipelined request waits for the answers before its own: until then nothing is read for it, and nobody tells when the client leaves.
    if (response.socket === null) response.once('socket', () => this.#begin(request, response))
    else this.#begin(request, response)
  }

  #begin(request: IncomingMessage, response: ServerResponse): void {
    if (this.#serveNow(request, response)) return
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

  /**
   * The way of most requests for lazily read images: a range of a blob that was asked for by this very URL before, and that lies in the
   * page cache. It is answered in this turn of the event loop, without anything that only waiting needs.
   */
  #serveNow(request: IncomingMessage, response: ServerResponse): boolean {
    const asked = request.method === 'GET' && !this.#options.accessLog ? this.#asked.get(request.url ?? '') : undefined
    if (asked === undefined) return false
    try {
      if (!this.#blobs.sendNow(request, response, asked)) return false
    } catch (error: unknown) {
      this.#fail(response, error, NEVER)
    }
    this.#deps.metrics.served('blob', response.statusCode, 0)
    return true
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
      case 'blob': {
        const asked = askedBlob(target, this.#registry(namespace), namespace)
        this.#asked.set(request.url ?? '', asked)
        return this.#blobs.handle(request, response, asked, signal)
      }
      case 'manifest': {
        const registry = this.#registry(namespace)
        const asked = { ...target, registry, namespace: namespace === undefined ? undefined : registry }
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
    const status = response.headersSent ? response.statusCode : CLIENT_LEFT
    metrics.served(route, status, seconds)
    if (!this.#options.accessLog) return
    log.info(
      {
        method: request.method,
        path: (request.url ?? '').split('?')[0],
        status,
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
