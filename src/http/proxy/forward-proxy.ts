import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { LRUCache } from 'lru-cache'
import { errorCode, systemCode, type Logger } from '../../core/index.ts'
import { logAccess } from '../access-log.ts'
import { askedBlob, type AskedBlob, type NamedBlob } from '../blob-route.ts'
import type { CertificateAuthority } from './authority.ts'
import { basicGate, type Gate } from './basic-auth.ts'
import { blobOf, endpointOf, namesHost, parseDestination, parseTunnelTarget } from './destination.ts'
import type { Egress } from './egress.ts'
import { forward } from './forward.ts'
import { hasPassed } from './headers.ts'
import { ESTABLISHED, Interceptor } from './interception.ts'
import type { ProxyMetrics } from './metrics.ts'
import {
  BUSY,
  DENIED,
  LOOP,
  MALFORMED,
  TOO_LONG,
  UNAUTHORISED,
  refusalOf,
  refuse,
  refuseConnect,
  type Refusal,
} from './refusals.ts'
import { compileRules, decide, matchedText, type CompiledRule, type ProxyRule, type Verdict } from './rules.ts'
import { join } from './tunnel.ts'

/** Expressions are the operator's, URLs are anybody's: what is matched against the former is bounded. */
const MAX_MATCHED_LENGTH = 8192
/** Each costs two descriptors. */
const MAX_TUNNELS = 1024
const MAX_REMEMBERED = 2000

export interface ForwardProxyDeps {
  readonly egress: Egress
  /** Whether a name is that of a registry whose blobs may be asked for, by whatever entry. */
  readonly isRegistry: (name: string) => boolean
  /** Answers a GET or HEAD of a blob. May reject while nothing has been sent. */
  readonly serveBlob: (
    request: IncomingMessage,
    response: ServerResponse,
    asked: NamedBlob,
    signal: AbortSignal,
  ) => Promise<void>
  /** Answers a GET of a blob that lies in the page cache. False: it takes more than that. Never throws. */
  readonly serveNow: (request: IncomingMessage, response: ServerResponse, asked: AskedBlob) => boolean
  /** Without it nothing is intercepted. */
  readonly authority?: CertificateAuthority
  readonly metrics: ProxyMetrics
  readonly log: Logger
}

export interface ProxyLogin {
  /** Without a user name nobody is asked for one. */
  readonly username?: string
  readonly password?: string
}

export interface ForwardProxyOptions extends ProxyLogin {
  /** Hosts whose tunnels are opened: `name`, `*.suffix` or `*`, each with `:port` or for every port. */
  readonly intercept: readonly string[]
  readonly rules: readonly ProxyRule[]
  /** This process in the Via headers of what it passes on: `1.1 <name>`. */
  readonly via: string
  readonly accessLog?: boolean
  /** At one time, intercepted ones included. Default: 1024. */
  readonly maxTunnels?: number
}

/**
 * Requests for URLs, and tunnels. Blobs of registries come from the cache, everything else goes through as it is. Who reaches what is up
 * to the egress. After close() there are no more tunnels.
 */
export class ForwardProxy {
  readonly #deps: ForwardProxyDeps
  readonly #intercepted: readonly string[]
  readonly #interceptor: Interceptor | undefined
  readonly #maxTunnels: number
  readonly #via: string
  readonly #accessLog: boolean
  /** Blobs by the URLs that they were asked for by, as the rules stand. */
  readonly #remembered = new LRUCache<string, AskedBlob>({ max: MAX_REMEMBERED })
  readonly #tunnels = new Set<Duplex>()
  #gate: Gate
  #rules: readonly CompiledRule[]
  #isClosed = false

  /** Throws ERR_CONFIG_INVALID when a rule cannot be used. */
  constructor(deps: ForwardProxyDeps, options: ForwardProxyOptions) {
    const { authority, log, metrics } = deps
    this.#deps = deps
    this.#gate = basicGate(options)
    this.#intercepted = options.intercept
    this.#via = options.via
    this.#accessLog = options.accessLog ?? false
    this.#maxTunnels = options.maxTunnels ?? MAX_TUNNELS
    this.#rules = compileRules(options.rules)
    this.#interceptor =
      authority === undefined
        ? undefined
        : new Interceptor({
            authority,
            log,
            handle: (request, response, origin) => this.#handleInside(request, response, origin),
            onUntrusted: () => metrics.proxied('untrusted'),
          })
  }

  /** Open ones, and those that are being opened. */
  get tunnels(): number {
    return this.#tunnels.size
  }

  /** For requests from now on. Throws ERR_CONFIG_INVALID, and keeps the old ones, when a rule cannot be used. */
  setRules(rules: readonly ProxyRule[]): void {
    this.#rules = compileRules(rules)
    this.#remembered.clear()
  }

  /** For requests and tunnels from now on. */
  setLogin(login: ProxyLogin): void {
    this.#gate = basicGate(login)
  }

  /** A request in absolute-form. Never throws and never rejects: every failure becomes an answer, or a destroyed connection. */
  readonly handle = (request: IncomingMessage, response: ServerResponse): void => {
    if (this.#gate(request.headers['proxy-authorization'])) this.#begin(request, response, request.url ?? '')
    else this.#refuse(request, response, UNAUTHORISED)
  }

  /** A CONNECT request, whose connection becomes this proxy's. Never throws and never rejects. */
  readonly connect = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    this.#tunnels.add(socket)
    socket.once('close', () => this.#tunnels.delete(socket))
    socket.on('error', (error: Error) => this.#deps.log.debug({ err: error }, 'client of a tunnel failed'))
    this.#open(request, socket, head).catch((error: unknown) => {
      if (socket.destroyed) return
      this.#refuseConnect(socket, refusalOf(error))
      this.#logFailure(error, request.url)
    })
  }

  /** Cuts every tunnel. Requests in absolute-form are their listener's to end. Repeatable. */
  close(): void {
    this.#isClosed = true
    for (const socket of this.#tunnels) socket.destroy()
  }

  /** A request that was found inside an intercepted tunnel, in origin-form. */
  #handleInside(request: IncomingMessage, response: ServerResponse, origin: string): void {
    if (request.url?.startsWith('/') === true) this.#begin(request, response, `${origin}${request.url}`)
    else this.#refuse(request, response, MALFORMED)
  }

  #begin(request: IncomingMessage, response: ServerResponse, text: string): void {
    if (response.socket === null) {
      // A pipelined request waits for the answers before its own: until then nobody tells when the client leaves.
      response.once('socket', () => this.#begin(request, response, text))
      return
    }
    if (this.#serveNow(request, response, text)) return
    const began = performance.now()
    const abort = new AbortController()
    response.once('close', () => {
      if (!response.writableFinished) abort.abort(new DOMException('the client has left', 'AbortError'))
      if (this.#accessLog) logAccess(this.#deps.log, request, response, (performance.now() - began) / 1000)
    })
    this.#answer(request, response, text, abort.signal).catch((error: unknown) => {
      const host = parseDestination(text)?.host
      if (response.headersSent) {
        // A stream that ended early without an error of its own was left by its reader.
        const level = systemCode(error) === 'ERR_STREAM_PREMATURE_CLOSE' ? 'debug' : 'warn'
        this.#deps.log[level]({ host, err: error }, 'answer cut')
        response.destroy()
      } else if (!abort.signal.aborted) {
        this.#refuse(request, response, refusalOf(error))
        this.#logFailure(error, host)
      }
    })
  }

  /** A range of a blob that was asked for by this very URL before. */
  #serveNow(request: IncomingMessage, response: ServerResponse, text: string): boolean {
    const asked = this.#accessLog || hasPassed(request, this.#via) ? undefined : this.#remembered.get(text)
    if (asked === undefined || !this.#deps.serveNow(request, response, asked)) return false
    this.#deps.metrics.proxied('cached')
    return true
  }

  async #answer(request: IncomingMessage, response: ServerResponse, text: string, signal: AbortSignal): Promise<void> {
    const { egress, metrics, serveBlob } = this.#deps
    const judged = this.#judge(request, parseDestination(text))
    if ('outcome' in judged) {
      this.#refuse(request, response, judged)
      return
    }
    const blob = this.#cachedBlob(request, judged)
    if (blob === undefined) {
      try {
        await forward({ egress, via: this.#via }, request, response, judged, signal)
      } finally {
        if (response.headersSent) metrics.proxied('forwarded')
      }
    } else {
      metrics.proxied('cached')
      // Against a rule for `direct` it was the header that insisted.
      if (judged.action !== 'direct') this.#remembered.set(text, askedBlob(blob))
      await serveBlob(request, response, blob, signal)
    }
  }

  /** Throws ERR_CONFIG_INVALID when a redirect leads nowhere. */
  #judge(request: IncomingMessage, url: URL | undefined): Refusal | Verdict {
    // Node reads HTTP/0.9 too: a target with a line break in it would be one.
    if (url === undefined || request.httpVersionMajor !== 1) return MALFORMED
    if (matchedText(url).length > MAX_MATCHED_LENGTH) return TOO_LONG
    if (hasPassed(request, this.#via)) return LOOP
    const verdict = decide(this.#rules, url)
    return verdict.action === 'deny' ? DENIED : verdict
  }

  /** Undefined: the request goes through as it is. */
  #cachedBlob({ method, headers }: IncomingMessage, { action, url }: Verdict): NamedBlob | undefined {
    const blob = method === 'GET' || method === 'HEAD' ? blobOf(url) : undefined
    if (blob === undefined || !this.#deps.isRegistry(blob.registry)) {
      if (action === 'cache')
        this.#deps.log.debug({ host: url.host, path: url.pathname }, 'not cached: no blob of a registry')
      return undefined
    }
    const insists = method === 'GET' && String(headers['x-dragonfly-use-p2p']).toLowerCase() === 'true'
    return action === 'direct' && !insists ? undefined : blob
  }

  /** Rejects while nothing has been sent. */
  async #open(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const url = parseTunnelTarget(request.url ?? '')
    const judged = this.#judgeTunnel(request, url)
    if ('outcome' in judged) this.#refuseConnect(socket, judged)
    else if (this.#interceptor !== undefined && url !== undefined && namesHost(this.#intercepted, url)) {
      await this.#interceptor.accept(socket, head, url)
      this.#deps.metrics.proxied('intercepted')
    } else await this.#tunnel(socket, head, judged)
  }

  #judgeTunnel(request: IncomingMessage, url: URL | undefined): Refusal | Verdict {
    if (!this.#gate(request.headers['proxy-authorization'])) return UNAUTHORISED
    if (this.#isClosed || this.#tunnels.size > this.#maxTunnels) return BUSY
    return this.#judge(request, url)
  }

  async #tunnel(socket: Duplex, head: Buffer, { url, trusted, allowed }: Verdict): Promise<void> {
    const { egress, log, metrics } = this.#deps
    const abort = new AbortController()
    socket.once('close', () => abort.abort(new DOMException('the client has left', 'AbortError')))
    const upstream = await egress.tunnel({ ...endpointOf(url), trusted, allowed, signal: abort.signal })
    metrics.proxied('tunnelled')
    socket.write(ESTABLISHED)
    if (head.length > 0) upstream.write(head)
    await join(socket, upstream).catch((error: unknown) => log.debug({ host: url.host, err: error }, 'tunnel cut'))
  }

  #refuse(request: IncomingMessage, response: ServerResponse, { outcome, answer }: Refusal): void {
    this.#deps.metrics.proxied(outcome)
    refuse(request, response, answer)
  }

  #refuseConnect(socket: Duplex, { outcome, answer }: Refusal): void {
    this.#tunnels.delete(socket)
    this.#deps.metrics.proxied(outcome)
    refuseConnect(socket, answer)
  }

  #logFailure(error: unknown, host: string | undefined): void {
    const level = errorCode(error) === 'ERR_ORIGIN_UNKNOWN' ? 'debug' : 'warn'
    this.#deps.log[level]({ host, err: error }, 'not proxied')
  }
}
