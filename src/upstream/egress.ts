import { once } from 'node:events'
import net from 'node:net'
import type { Duplex, Readable } from 'node:stream'
import { LRUCache } from 'lru-cache'
import { Pool } from 'undici'
import { normaliseRegistry, raceAbort, ShoalError, type Logger } from '../core/index.ts'
import { companionOf } from './default-registries.ts'
import { filteredLookup, isRefusedLiteral, publicAddresses, type AddressFilter } from './net/addresses.ts'
import { transportError } from './net/failures.ts'
import type { TlsConnectOptions } from './net/tls.ts'
import type { EgressTarget } from './table/entry.ts'
import type { OriginTable } from './table/origin-table.ts'

/** Hosts that connections are kept to; the one unused longest is let go for a new one. */
const MAX_HOSTS = 64
const CONNECTIONS_PER_HOST = 32
/** A push may be thought about for long before it is answered. */
const HEADERS_TIMEOUT_MS = 300_000
const KEEP_ALIVE_PROBE_MS = 60_000
/** Where a request goes that no rule names: web servers and registries, not whatever else listens. */
const USUAL_PORTS = new Set([80, 443, 5000])
const PUBLIC: TlsConnectOptions = { rejectUnauthorized: true }

/** See Permission in http/: by what right something goes where the table does not. */
interface Permission {
  readonly trusted: boolean
  readonly allowed: boolean
}

interface Request extends Permission {
  readonly method: string
  readonly url: URL
  /** Names and values in turn. */
  readonly headers: readonly string[]
  readonly body: Readable | undefined
  readonly signal: AbortSignal
}

interface Answer {
  readonly status: number
  readonly statusText: string
  readonly headers: readonly string[]
  readonly body: Readable
}

export interface EgressOptions {
  readonly connectTimeoutMs: number
  readonly idleTimeoutMs: number
  readonly allowAny: boolean
  readonly allowPrivate: readonly string[]
}

/** Where a connection goes, and how. */
interface Route {
  readonly url: URL
  readonly tls: TlsConnectOptions
  /** Absent: any address. */
  readonly addresses?: AddressFilter | undefined
  /** Routes with the same key share connections. */
  readonly key: string
}

/**
 * The forward proxy's way out. A host has to be one of the table, or known as the place where a public registry keeps its tokens and
 * content, or named by a rule; what only a rule's expression or allow_any lets pass goes to public addresses only.
 */
export class TableEgress {
  readonly #table: Pick<OriginTable, 'target' | 'targetAt' | 'names'>
  readonly #log: Logger
  #options: EgressOptions
  #filter: AddressFilter
  readonly #pools: LRUCache<string, Pool>
  readonly #ids = new WeakMap<TlsConnectOptions, number>()
  #lastId = 0
  readonly #closing = new Set<Promise<void>>()
  #closed = false

  /** Throws ERR_CONFIG_INVALID for CIDRs that are none. */
  constructor(
    deps: { readonly table: Pick<OriginTable, 'target' | 'targetAt' | 'names'>; readonly log: Logger },
    options: EgressOptions,
  ) {
    this.#table = deps.table
    this.#log = deps.log
    this.#options = options
    this.#filter = publicAddresses(options.allowPrivate)
    this.#pools = new LRUCache({ max: MAX_HOSTS, dispose: pool => this.#release(pool) })
  }

  /** For requests from now on. Throws ERR_CONFIG_INVALID, and changes nothing, for CIDRs that are none. */
  reload(options: EgressOptions): void {
    this.#filter = publicAddresses(options.allowPrivate)
    this.#options = options
    this.#pools.clear()
  }

  /** One request and the head of its answer; both bodies stream. Throws ERR_ORIGIN_UNKNOWN, ERR_UPSTREAM_*, ERR_CLOSED; aborted: the reason. */
  async forward({ method, url, headers, body, signal, ...permission }: Request): Promise<Answer> {
    signal.throwIfAborted()
    const route = this.#route(url, permission)
    const isElsewhere = route.url.host !== url.host
    try {
      const answer = this.#pool(route).request({
        method,
        path: `${route.url.pathname}${route.url.search}`,
        headers: isElsewhere ? withHost(headers, route.url.host) : [...headers],
        body: body ?? null,
        responseHeaders: 'raw',
        signal,
      })
      const response = await raceAbort(answer, signal)
      return {
        status: response.statusCode,
        statusText: response.statusText,
        // What responseHeaders makes of them, which the types do not say.
        headers: response.headers as unknown as string[],
        body: response.body,
      }
    } catch (error: unknown) {
      signal.throwIfAborted()
      throw transportError(error, route.url.host)
    }
  }

  /** A connection for a tunnel. The same errors. */
  async tunnel({
    host,
    port,
    signal,
    ...permission
  }: Permission & { readonly host: string; readonly port: number; readonly signal: AbortSignal }): Promise<Duplex> {
    const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`
    const route = this.#route(new URL(`https://${authority}/`), permission)
    const socket = net.connect({
      host: route.url.hostname.replace(/^\[|\]$/g, ''),
      port: portOf(route.url),
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_PROBE_MS,
      ...(route.addresses === undefined ? {} : { lookup: filteredLookup(route.addresses) }),
    })
    const timeout = AbortSignal.timeout(this.#options.connectTimeoutMs)
    try {
      await once(socket, 'connect', { signal: AbortSignal.any([signal, timeout]) })
      return socket
    } catch (error: unknown) {
      socket.on('error', () => undefined).destroy()
      signal.throwIfAborted()
      throw transportError(timeout.aborted ? { code: 'ETIMEDOUT' } : error, route.url.host)
    }
  }

  /** Refuses new requests and waits for those under way; tunnels belong to who asked for them. May be called again. */
  async close(): Promise<void> {
    this.#closed = true
    this.#pools.clear()
    await Promise.all(this.#closing)
  }

  #route(url: URL, { trusted, allowed }: Permission): Route {
    this.#checkOpen()
    const target = this.#targetOf(url)
    // Nobody ends TLS at a server that speaks none: then the name itself is the way.
    if (target?.base.protocol === 'http:' && url.protocol === 'https:' && url.pathname === '/') {
      return { url, tls: PUBLIC, key: `named ${url.origin}` }
    }
    if (target !== undefined) return routeTo(target, url, this.#idOf(target))
    if (trusted) return { url, tls: PUBLIC, key: `trusted ${url.origin}` }
    const companion = companionOf(url.hostname)
    const isKnown = companion !== undefined && this.#table.names().includes(companion)
    const isUsual = USUAL_PORTS.has(portOf(url)) && (this.#options.allowAny || isKnown)
    if ((!allowed && !isUsual) || isRefusedLiteral(url.hostname, this.#filter)) {
      throw new ShoalError('ERR_ORIGIN_UNKNOWN', `${url.host} is neither in the configured table nor named by a rule`)
    }
    return { url, tls: PUBLIC, addresses: this.#filter, key: `filtered ${url.origin}` }
  }

  /** By its name, or by where a registry of the table really is. `*` and the like stand for registries, not for whatever else has a name. */
  #targetOf(url: URL): EgressTarget | undefined {
    const name = normaliseRegistry(url.host)
    const named = this.#table.targetAt(url.host)
    if (named !== undefined || name === undefined) return named
    return this.#table.target(name, { isListed: !url.pathname.startsWith('/v2/') })
  }

  /** Each entry of the table has its own TLS options: what was connected with those of another, or of one that is no more, is not for it. */
  #idOf({ tls: connectTls }: EgressTarget): number {
    const known = this.#ids.get(connectTls)
    if (known !== undefined) return known
    this.#lastId += 1
    this.#ids.set(connectTls, this.#lastId)
    return this.#lastId
  }

  #pool({ addresses, key, tls: connectTls, url }: Route): Pool {
    const known = this.#pools.get(key)
    if (known !== undefined) return known
    const { connectTimeoutMs, idleTimeoutMs } = this.#options
    const pool = new Pool(url.origin, {
      connections: CONNECTIONS_PER_HOST,
      headersTimeout: HEADERS_TIMEOUT_MS,
      bodyTimeout: idleTimeoutMs,
      connect: {
        timeout: connectTimeoutMs,
        ...connectTls,
        ...(addresses === undefined ? {} : { lookup: filteredLookup(addresses) }),
      },
    })
    this.#pools.set(key, pool)
    return pool
  }

  #release(pool: Pool): void {
    const closing = pool
      .close()
      .catch((error: unknown) => this.#log.debug({ err: error }, 'connections not closed cleanly'))
      .finally(() => this.#closing.delete(closing))
    this.#closing.add(closing)
  }

  #checkOpen(): void {
    if (this.#closed) throw new ShoalError('ERR_CLOSED', 'the forward proxy is closing')
  }
}

/** To the server that the table has for a name: wherever that is, and however it is spoken to. `id`: of all but the place. */
function routeTo({ addresses, base, tls: connectTls }: EgressTarget, url: URL, id: number): Route {
  const there = new URL(url)
  there.protocol = base.protocol
  there.host = base.host
  if (base.port === '') there.port = ''
  if (there.pathname.startsWith('/v2/')) there.pathname = `${base.pathname}${there.pathname.slice('/v2/'.length)}`
  return { url: there, tls: connectTls, addresses, key: `table ${base.href} ${id}` }
}

function portOf({ port, protocol }: URL): number {
  return port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port)
}

function withHost(headers: readonly string[], host: string): string[] {
  return headers.map((value, index) => (index % 2 === 1 && headers[index - 1]?.toLowerCase() === 'host' ? host : value))
}
