import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { LRUCache } from 'lru-cache'
import { parseDigest, type ListingRequest, type Logger } from '../core/index.ts'
import type { ManifestReader, Sources } from '../blobs/index.ts'
import { logAccess } from './access-log.ts'
import { isOwnAddress, parseAbsoluteForm, type AbsoluteForm } from './absolute-form.ts'
import { askedBlob, type AskedBlob, type BlobRoute } from './blob-route.ts'
import { wishesOf } from './dragonfly.ts'
import { handleListing } from './listing-route.ts'
import { handleManifest } from './manifest-route.ts'
import { statusOf, type HttpMetrics } from './metrics.ts'
import type { PingAnswer } from './pings.ts'
import { hasPassed } from './proxy/headers.ts'
import {
  LOOP,
  METHOD_NOT_ALLOWED,
  NOT_A_PROXY,
  NOT_A_ROUTE,
  answerFailure,
  sendError,
  type ErrorAnswer,
} from './registry-error.ts'
import { nameOrThrow, registryOf, virtualHost, type SaidRegistry } from './registry-name.ts'
import { parseUrl, sortPrefixes, type BlobPrefix, type Target } from './target.ts'

export interface MirrorDeps {
  /** Shared with whatever else answers requests for blobs. */
  readonly blobs: BlobRoute
  readonly manifests: ManifestReader
  readonly sources: Sources
  /** Takes the requests in absolute-form that mean others. Absent: there is no forward proxy. Never throws. */
  readonly proxy?: { handle(request: IncomingMessage, response: ServerResponse): void } | undefined
  readonly metrics: HttpMetrics
  readonly log: Logger
}

/** One blob on a unix socket of its own: nydusd's http-proxy backend asks there for `/`, whichever blob it wants. */
export interface BlobSocket {
  readonly socket: string
  /** Name of a registry or of another origin. */
  readonly origin: string
  readonly repository: string
  readonly digest: string
}

/** Where blobs are served without a path of the pull API. */
export type BlobEndpoint = BlobPrefix | BlobSocket

export interface MirrorOptions {
  /** For requests that name no registry. */
  readonly defaultRegistry: string
  /** Virtual hosts: registries by the Host header, with or without its port. */
  readonly hosts: Readonly<Record<string, string>>
  /** Those with a socket are served by handlerFor(). */
  readonly blobs: readonly BlobEndpoint[]
  readonly accessLog: boolean
  /** What requests to origins say as `Via`: one that arrives with it is refused, or it would wait for its own answer. */
  readonly via?: string | undefined
}

/** What a URL meant, and what besides it the request said that decided so. */
interface Remembered {
  readonly asked: AskedBlob
  /** Undefined: the URL alone decides. */
  readonly said: Pick<SaidRegistry, 'header' | 'host'> | undefined
}

/** What a request is for, and how to answer it if it only reads. May throw or reject while nothing has been sent. */
interface Step {
  readonly route: Target['kind']
  answer(signal: AbortSignal): Promise<void> | undefined
}

const MAX_REMEMBERED = 2000

/**
 * The pull side of the registry API, in every dialect in which clients ask for it. It sits directly on node:http, because every framework
 * layer costs a warm range a measurable part of its time (docs/decisions/0002).
 */
export class Mirror {
  readonly #deps: MirrorDeps
  readonly #options: MirrorOptions
  readonly #hosts: ReadonlyMap<string, string>
  readonly #prefixes: readonly BlobPrefix[]
  /** Blobs by the URLs that they were asked for by: parsing and checking a URL costs more than answering it. */
  readonly #remembered = new LRUCache<string, Remembered>({ max: MAX_REMEMBERED })

  constructor(deps: MirrorDeps, options: MirrorOptions) {
    this.#deps = deps
    this.#options = options
    this.#hosts = new Map(Object.entries(options.hosts).map(([host, registry]) => [host.toLowerCase(), registry]))
    this.#prefixes = sortPrefixes(options.blobs.filter(endpoint => 'prefix' in endpoint))
  }

  /** A request listener. Never throws and never rejects: every failure becomes an answer, or a destroyed connection. */
  readonly handle: RequestListener = (request, response) => {
    inTurn(response, () => this.#begin(request, response))
  }

  /**
   * A request listener for the socket of one blob, where any path and any Host mean that blob. Throws ERR_ORIGIN_UNKNOWN,
   * ERR_DIGEST_INVALID or ERR_NAME_INVALID for an endpoint that cannot mean one.
   */
  handlerFor({ origin, repository, digest }: BlobSocket): RequestListener {
    const { blobs } = this.#deps
    const asked = askedBlob({ registry: nameOrThrow(origin), repository, digest })
    return (request, response) => {
      const step: Step = { route: 'blob', answer: signal => blobs.handle(request, response, asked, signal) }
      inTurn(response, () => {
        if (!this.#serveNow(request, response, asked)) this.#answer(request, response, () => step)
      })
    }
  }

  #begin(request: IncomingMessage, response: ServerResponse): void {
    const url = request.url ?? '/'
    const remembered = this.#remembered.get(url)
    if (remembered !== undefined && this.#isStillMeant(remembered, request)) {
      if (this.#serveNow(request, response, remembered.asked)) return
    }
    const absolute = parseAbsoluteForm(url)
    if (absolute === undefined)
      this.#answer(request, response, () => this.#find(request, response, url, request.headers.host))
    else this.#beginAbsolute(request, response, absolute)
  }

  #beginAbsolute(request: IncomingMessage, response: ServerResponse, absolute: AbsoluteForm): void {
    const { proxy } = this.#deps
    const { authority, path } = absolute
    // The authority stands for the Host header then (RFC 9112, 3.2.2).
    if (isOwnAddress(absolute, request.socket) || virtualHost(authority, this.#hosts) !== undefined)
      this.#answer(request, response, () => this.#find(request, response, path, authority))
    else if (proxy !== undefined) proxy.handle(request, response)
    else this.#answer(request, response, () => refusing(response, NOT_A_PROXY, 'unknown'))
  }

  /**
   * The way of most requests for lazily read images: a range of a blob that was asked for in this very way before, and that lies in the
   * page cache. It is answered in this turn of the event loop, without anything that only waiting needs.
   */
  #serveNow(request: IncomingMessage, response: ServerResponse, asked: AskedBlob): boolean {
    return !this.#options.accessLog && this.#deps.blobs.serveNow(request, response, asked)
  }

  /** Every other way. Where `find` throws, the request is for nothing that is known. */
  #answer(request: IncomingMessage, response: ServerResponse, find: () => Step): void {
    const { log } = this.#deps
    const began = performance.now()
    const abort = new AbortController()
    const { signal } = abort
    let route: Target['kind'] = 'unknown'
    response.once('close', () => {
      if (!response.writableFinished) abort.abort(new DOMException('the client has left', 'AbortError'))
      this.#account(request, response, route, began)
    })
    try {
      const step = this.#isOurs(request) ? refusing(response, LOOP, route) : find()
      route = step.route
      if (request.method !== 'GET' && request.method !== 'HEAD') sendError(response, METHOD_NOT_ALLOWED)
      else step.answer(signal)?.catch((error: unknown) => answerFailure(response, error, { signal, log }))
    } catch (error: unknown) {
      answerFailure(response, error, { signal, log })
    }
  }

  /** What a target in origin-form is for. */
  #find(request: IncomingMessage, response: ServerResponse, url: string, host: string | undefined): Step {
    const { blobs, manifests, sources } = this.#deps
    const { target, namespace, query } = parseUrl(url, this.#prefixes)
    const { kind } = target
    const said = { namespace, header: registryHeader(request), host }
    switch (kind) {
      case 'base':
        return { route: kind, answer: () => sendPing(response, target.answer) }
      case 'blob':
        return {
          route: kind,
          answer: signal => blobs.handle(request, response, this.#asked(request, url, target, said), signal),
        }
      case 'manifest':
        return this.#unlessRefused(request, response, kind, signal => {
          const registry = this.#registryOf(said)
          const asked = { ...target, registry, namespace: namespace === undefined ? undefined : registry }
          return handleManifest(manifests, request, response, asked, signal)
        })
      case 'tags':
      case 'referrers':
        return this.#unlessRefused(request, response, kind, signal => {
          const asked = { registry: this.#registryOf(said), repository: target.repository, query, namespace }
          return handleListing(sources, request, response, { ...asked, listing: listingOf(target) }, signal)
        })
      case 'upload':
        return refusing(response, METHOD_NOT_ALLOWED, kind)
      case 'unknown':
        return refusing(response, NOT_A_ROUTE, kind)
    }
  }

  /** The route of blobs looks at what Dragonfly's headers wish by itself. */
  #unlessRefused(
    request: IncomingMessage,
    response: ServerResponse,
    route: Target['kind'],
    answer: Step['answer'],
  ): Step {
    const refusal = wishesOf(request)?.refusal
    return refusal === undefined ? { route, answer } : refusing(response, refusal, route)
  }

  #asked(
    request: IncomingMessage,
    url: string,
    target: Target & { readonly kind: 'blob' },
    said: SaidRegistry,
  ): AskedBlob {
    const isNamedByUrl = target.registry !== undefined || said.namespace !== undefined
    const asked =
      target.registry === undefined
        ? askedBlob({ ...target, registry: this.#registryOf(said) }, said.namespace)
        : askedBlob({ ...target, registry: nameOrThrow(target.registry) })
    // What an absolute-form means depends on where it arrives.
    if (url !== request.url) return asked
    const { header } = said
    this.#remembered.set(url, {
      asked,
      said: isNamedByUrl ? undefined : { header, host: this.#hostThatMatters(request) },
    })
    return asked
  }

  #isStillMeant({ said }: Remembered, request: IncomingMessage): boolean {
    return (
      said === undefined || (said.header === registryHeader(request) && said.host === this.#hostThatMatters(request))
    )
  }

  #isOurs(request: IncomingMessage): boolean {
    const { via } = this.#options
    return via !== undefined && hasPassed(request, via)
  }

  #hostThatMatters(request: IncomingMessage): string | undefined {
    return this.#hosts.size === 0 ? undefined : request.headers.host
  }

  #registryOf(said: SaidRegistry): string {
    return registryOf(said, { defaultRegistry: this.#options.defaultRegistry, hosts: this.#hosts })
  }

  #account(request: IncomingMessage, response: ServerResponse, route: Target['kind'], began: number): void {
    const { metrics, log } = this.#deps
    const seconds = (performance.now() - began) / 1000
    const status = statusOf(response)
    metrics.served(route, status, seconds)
    if (this.#options.accessLog) logAccess(log, request, response, seconds)
  }
}

/** A pipelined request waits for the answers before its own: until then nothing is read for it, and nobody tells when the client leaves. */
function inTurn(response: ServerResponse, begin: () => void): void {
  if (response.socket === null) response.once('socket', begin)
  else begin()
}

function registryHeader(request: IncomingMessage): string | undefined {
  return request.headers['x-dragonfly-registry']?.toString()
}

function refusing(response: ServerResponse, answer: ErrorAnswer, route: Target['kind']): Step {
  return {
    route,
    answer: () => {
      sendError(response, answer)
      return undefined
    },
  }
}

function listingOf(target: Target & { readonly kind: 'tags' | 'referrers' }): ListingRequest['listing'] {
  return target.kind === 'tags' ? { kind: target.kind } : { kind: target.kind, digest: parseDigest(target.digest) }
}

function sendPing(response: ServerResponse, { headers, body }: PingAnswer): undefined {
  response.writeHead(200, { ...headers, 'Content-Length': body.length }).end(body)
}
