import { LRUCache } from 'lru-cache'
import { Pool, type Dispatcher } from 'undici'
import { raceAbort, ShoalError, type Clock } from '../../core/index.ts'
import { filteredLookup, isRefusedLiteral, type AddressFilter } from './addresses.ts'
import { tunnelConnector } from './connect-tunnel.ts'
import { transportError } from './failures.ts'
import type { OriginKind, RequestOutcome, UpstreamMetrics } from '../metrics.ts'
import type { ConnectionOptions } from '../options.ts'
import { foreignHostTls, ownHostTls, type TlsConnectOptions, type TlsMaterial } from './tls.ts'

/** Hosts other than the registry's own that keep connections at one time; the one unused longest is closed for a new one. */
const MAX_FOREIGN_HOSTS = 16
/** Shorter than the 60 s and more after which load balancers drop idle connections without a word. */
const KEEP_ALIVE_MS = 15_000
/** Room for a signed Location and a large challenge. */
const MAX_HEADER_BYTES = 64 * 1024
/**
 * Of the connections to one host, a quarter and at most so many are not for bodies of blobs: a body that its reader does not pull holds
 * its connection for as long as it likes, and what waits for one has no timeout.
 */
const MAX_PROMPT_CONNECTIONS = 8
/** The rest of an answer that nobody reads is taken off the wire up to here, so that its connection can be used again. */
const DRAIN_BYTES = 16 * 1024

export type ResponseBody = Dispatcher.ResponseData['body']
export type ResponseHeaders = Dispatcher.ResponseData['headers']

export interface TransportRequest {
  readonly method: 'GET' | 'HEAD' | 'POST'
  readonly body?: string
  /** Several values are lines of their own. */
  readonly headers: Readonly<Record<string, string | readonly string[]>>
  /** The body is read at somebody else's pace. Default: at once, or not at all. */
  readonly bulk?: boolean
  /** Waits behind nothing: for what asks whether the host is there at all. */
  readonly ping?: boolean
  /** Carries a login: past the proxy, where there is a way, and through it only in a tunnel. */
  readonly secret?: boolean
  readonly signal?: AbortSignal | undefined
}

export interface TransportResponse {
  readonly status: number
  readonly headers: ResponseHeaders
  /** To be read to its end, drained or discarded. */
  readonly body: ResponseBody
}

/** The connections to one host. */
interface HostPools {
  readonly bulk: Pool
  readonly prompt: Pool
  readonly ping: Pool
}

/** Where a request goes: over which connections, and what it says there of itself. */
interface Way {
  readonly pools: HostPools
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
}

/** An HTTP proxy before every host, and whether it is worth trying now. */
export interface TransportProxy {
  readonly url: URL
  /** Requests that it fails (5xx, transport) are sent directly. */
  readonly fallback: boolean
  /** It gets http: URLs of https hosts. */
  readonly useHttp: boolean
  readonly route: {
    readonly isUsable: boolean
    wanted(): void
    failed(error: unknown): void
  }
}

export interface TransportOptions extends ConnectionOptions {
  readonly base: URL
  readonly tls: TlsMaterial
  /** Which addresses may be connected to directly. Default: all. */
  readonly addresses?: AddressFilter | undefined
  readonly proxy?: TransportProxy | undefined
  /** For metrics. Default: registry. */
  readonly kind?: OriginKind | undefined
  /** Instead of the host of `base`, a unix socket. */
  readonly socketPath?: string | undefined
}

/** The connections of one registry: to its own host, and to a few that it leads to. Follows nothing and retries nothing. */
export class Transport {
  readonly #clock: Clock
  readonly #metrics: UpstreamMetrics
  readonly #kind: OriginKind
  readonly #ownOrigin: string
  readonly #own: HostPools
  readonly #foreign: LRUCache<string, HostPools>
  readonly #addresses: AddressFilter | undefined
  readonly #proxy: TransportProxy | undefined
  /** Connections to the proxy, by the origin that they lead to; those that carry absolute URLs, by ''. */
  readonly #proxied: LRUCache<string, HostPools>
  readonly #closing = new Set<Promise<void>>()
  #closed = false

  constructor(deps: { readonly clock: Clock; readonly metrics: UpstreamMetrics }, options: TransportOptions) {
    const { addresses, base, tls, connectTimeoutMs, idleTimeoutMs, maxConnections, proxy, socketPath } = options
    const poolOptions = {
      headersTimeout: idleTimeoutMs,
      bodyTimeout: idleTimeoutMs,
      keepAliveTimeout: KEEP_ALIVE_MS,
      maxHeaderSize: MAX_HEADER_BYTES,
    }
    const resolve = addresses === undefined ? {} : { lookup: filteredLookup(addresses) }
    const connect = { timeout: connectTimeoutMs, ...resolve }
    const open = (origin: string, hostTls: TlsConnectOptions, socket: { socketPath?: string } = {}): HostPools =>
      openPools(origin, { ...poolOptions, connect: { ...connect, ...hostTls, ...socket } }, maxConnections)
    const [ownTls, foreignTls] = [ownHostTls(tls), foreignHostTls(tls)]
    this.#clock = deps.clock
    this.#metrics = deps.metrics
    this.#kind = options.kind ?? 'registry'
    this.#ownOrigin = base.origin
    this.#own = open(base.origin, ownTls, socketPath === undefined ? {} : { socketPath })
    this.#foreign = new LRUCache({
      max: MAX_FOREIGN_HOSTS,
      memoMethod: origin => open(origin, foreignTls),
      dispose: pools => this.#close(pools),
    })
    this.#addresses = addresses
    this.#proxy = proxy
    const openProxied = (origin: string): HostPools => {
      if (proxy === undefined || origin === '') return open(proxy?.url.origin ?? '', foreignTls)
      const hostTls = origin === base.origin ? ownTls : foreignTls
      const tunnel = tunnelConnector(proxy.url, { timeoutMs: connectTimeoutMs, tls: hostTls })
      return openPools(origin, { ...poolOptions, connect: tunnel }, maxConnections)
    }
    this.#proxied = new LRUCache({
      max: MAX_FOREIGN_HOSTS,
      memoMethod: openProxied,
      dispose: pools => this.#close(pools),
    })
  }

  /**
   * One request and the headers of its answer. Throws ERR_UPSTREAM_TIMEOUT, ERR_UPSTREAM_TRANSPORT or ERR_CLOSED; aborted:
   * `signal.reason`, also while the body is read.
   */
  async send(url: URL, request: TransportRequest): Promise<TransportResponse> {
    request.signal?.throwIfAborted()
    if (this.#closed) throw new ShoalError('ERR_CLOSED', `the connections to ${url.host} are closed`)
    const proxy = this.#proxy
    if (proxy === undefined || (request.secret === true && proxy.fallback))
      return this.#sendOver(this.#directWay(url), url, request)
    return this.#sendProxied(proxy, url, request)
  }

  async #sendProxied(proxy: TransportProxy, url: URL, request: TransportRequest): Promise<TransportResponse> {
    const { route } = proxy
    route.wanted()
    if (route.isUsable) {
      try {
        const response = await this.#sendOver(this.#proxiedWay(proxy, url, request), url, request)
        if (response.status < 500 || !proxy.fallback) return response
        drain(response.body)
      } catch (error: unknown) {
        request.signal?.throwIfAborted()
        route.failed(error)
        if (!proxy.fallback) throw error
      }
    } else if (!proxy.fallback) {
      throw new ShoalError('ERR_UPSTREAM_TRANSPORT', `the proxy before ${url.host} does not answer its pings`, {
        details: { host: url.host },
      })
    }
    return this.#sendOver(this.#directWay(url), url, request)
  }

  #directWay(url: URL): Way {
    if (this.#addresses !== undefined && isRefusedLiteral(url.hostname, this.#addresses)) {
      throw new ShoalError('ERR_UPSTREAM_TRANSPORT', `${url.host} is no address that may be reached`, {
        details: { host: url.host },
      })
    }
    const pools = url.origin === this.#ownOrigin ? this.#own : this.#foreign.memo(url.origin)
    return { pools, path: `${url.pathname}${url.search}`, headers: {} }
  }

  /** A tunnel for https; for http, and for what is to look like it, the absolute form of RFC 9112, 3.2.2. */
  #proxiedWay({ useHttp }: TransportProxy, url: URL, { secret }: TransportRequest): Way {
    if (url.protocol === 'https:' && (!useHttp || secret === true)) {
      return { pools: this.#proxied.memo(url.origin), path: `${url.pathname}${url.search}`, headers: {} }
    }
    const path = `http://${url.host}${url.pathname}${url.search}`
    return { pools: this.#proxied.memo(''), path, headers: { host: url.host } }
  }

  async #sendOver(
    { pools, path, headers: wayHeaders }: Way,
    url: URL,
    { body, bulk, method, headers, ping, signal }: TransportRequest,
  ): Promise<TransportResponse> {
    const pool = ping === true ? pools.ping : bulk === true ? pools.bulk : pools.prompt
    const started = this.#clock.now()
    try {
      const answer = pool.request({
        method,
        path,
        headers: linesOf({ 'user-agent': 'shoal', ...wayHeaders, ...headers }),
        ...(body === undefined ? {} : { body }),
        // undici closes the connection after every HEAD unless it is told not to.
        ...(method === 'HEAD' ? { reset: false } : {}),
        ...(signal === undefined ? {} : { signal }),
      })
      // undici heeds the signal no sooner than it has a connection for the request.
      const response = await raceAbort(answer, signal)
      this.#metrics.duration.observe({ origin_kind: this.#kind }, Math.max(0, this.#clock.now() - started) / 1000)
      this.#count(outcomeOf(response.statusCode))
      return { status: response.statusCode, headers: response.headers, body: response.body }
    } catch (error: unknown) {
      if (signal?.aborted === true) {
        this.#count('aborted')
        throw signal.reason
      }
      const failure = transportError(error, url.host)
      this.#count(failure.code === 'ERR_UPSTREAM_TIMEOUT' ? 'timeout' : 'transport')
      throw failure
    }
  }

  /** Refuses new requests and waits for those under way, bodies included. May be called again. */
  async close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true
      this.#close(this.#own)
      this.#foreign.clear()
      this.#proxied.clear()
    }
    await Promise.all(this.#closing)
  }

  #close(pools: HostPools): void {
    for (const pool of [pools.bulk, pools.prompt, pools.ping]) {
      const closing = pool.close().finally(() => this.#closing.delete(closing))
      this.#closing.add(closing)
    }
  }

  #count(outcome: RequestOutcome): void {
    this.#metrics.requests.inc({ origin_kind: this.#kind, outcome })
  }
}

/** As undici takes them. */
function linesOf(headers: TransportRequest['headers']): Record<string, string | string[]> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, typeof value === 'string' ? value : [...value]]),
  )
}

/** Opens no connection yet. */
function openPools(origin: string, options: Pool.Options, maxConnections: number): HostPools {
  const prompt = Math.max(1, Math.min(MAX_PROMPT_CONNECTIONS, Math.floor(maxConnections / 4)))
  const bulk = Math.max(1, maxConnections - prompt)
  return {
    bulk: new Pool(origin, { ...options, connections: bulk }),
    prompt: new Pool(origin, { ...options, connections: prompt }),
    ping: new Pool(origin, { ...options, connections: 1 }),
  }
}

/** Ends an answer whose bytes are not wanted: its connection is closed. */
export function discard(body: ResponseBody): void {
  body.on('error', () => undefined).destroy()
}

/** Ends an answer whose few remaining bytes are not wanted, keeping its connection where that is cheap. Does not wait. */
export function drain(body: ResponseBody): void {
  body.dump({ limit: DRAIN_BYTES }).catch(() => discard(body))
}

/** One header. Undefined when absent; several of the same name are joined as RFC 9110 allows, so that a doubled number is none. */
export function headerOf(headers: ResponseHeaders, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value.join(', ') : value
}

/** Every value of a header, untouched. */
export function headerValues(headers: ResponseHeaders, name: string): string[] {
  const value = headers[name]
  if (value === undefined) return []
  return Array.isArray(value) ? value : [value]
}

/** Throws ERR_LIMIT_EXCEEDED, and closes the connection, when the body is longer than `limit` bytes. Errors of the connection as for send. */
export async function readBody(
  body: ResponseBody,
  limit: number,
  options: { readonly host: string; readonly signal?: AbortSignal | undefined },
): Promise<Buffer> {
  const pieces: Buffer[] = []
  let length = 0
  try {
    for await (const piece of body as AsyncIterable<Buffer>) {
      length += piece.length
      if (length > limit) throw new ShoalError('ERR_LIMIT_EXCEEDED', `${options.host} sent more than ${limit} bytes`)
      pieces.push(piece)
    }
  } catch (error: unknown) {
    options.signal?.throwIfAborted()
    throw transportError(error, options.host)
  }
  return Buffer.concat(pieces, length)
}

function outcomeOf(status: number): RequestOutcome {
  if (status < 300) return 'success'
  if (status < 400) return 'redirect'
  if (status === 401 || status === 403) return 'refused'
  if (status === 404) return 'absent'
  if (status === 429) return 'throttled'
  return status < 500 ? 'client-error' : 'server-error'
}
