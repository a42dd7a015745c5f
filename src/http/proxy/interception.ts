import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'
import type { Logger } from '../../core/index.ts'
import type { CertificateAuthority } from './authority.ts'
import { endpointOf } from './destination.ts'
import { keepOpen } from './tunnel.ts'

/** For a handshake and the head of the first request; a client has a reason to have connected. */
const FIRST_REQUEST_MS = 30_000
/** As on the listeners. */
const KEEP_ALIVE_MS = 90_000

export const ESTABLISHED = 'HTTP/1.1 200 Connection Established\r\n\r\n'

export interface InterceptorDeps {
  readonly authority: CertificateAuthority
  /** `origin` is where the client believes to be: `https://host[:port]`. */
  readonly handle: (request: IncomingMessage, response: ServerResponse, origin: string) => void
  /**
   * A client has left without a request. It does not trust the authority, or speaks no TLS: some look at a certificate only after the
   * handshake.
   */
  readonly onUntrusted: () => void
  readonly log: Logger
}

/** Ends the TLS of tunnels, under certificates of the node's own authority, and reads the requests inside. */
export class Interceptor {
  readonly #deps: InterceptorDeps
  readonly #firstRequestMs: number
  /** Never listens: connections are handed to it. */
  readonly #server: Server
  readonly #origins = new WeakMap<Socket, string>()
  /** Those that have asked for something. */
  readonly #trusting = new WeakSet<Socket>()

  constructor(deps: InterceptorDeps, options: { firstRequestMs?: number } = {}) {
    this.#deps = deps
    this.#firstRequestMs = options.firstRequestMs ?? FIRST_REQUEST_MS
    this.#server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS, requestTimeout: 0 }, (request, response) => {
      request.socket.setTimeout(0)
      this.#trusting.add(request.socket)
      deps.handle(request, response, this.#origins.get(request.socket) ?? '')
    })
  }

  /**
   * Answers a CONNECT for `url` and takes the connection over, until either side closes it. Rejects before anything was sent when there is
   * no certificate to be had.
   */
  async accept(socket: Duplex, head: Buffer, url: URL): Promise<void> {
    const { authority, log, onUntrusted } = this.#deps
    const { host } = endpointOf(url)
    const secureContext = await authority.leafFor(host)
    if (socket.destroyed) return
    keepOpen(socket)
    socket.write(ESTABLISHED)
    // A client that did not wait for the answer has begun its handshake already.
    if (head.length > 0) socket.unshift(head)
    const secured = new TLSSocket(socket, { isServer: true, secureContext, ALPNProtocols: ['http/1.1'] })
    this.#origins.set(secured, url.origin)
    // The server ends what the client has ended; until it has the connection, nobody else would.
    const giveUp = (): void => void secured.destroy()
    secured.once('end', giveUp)
    secured.once('secure', () => {
      secured.off('end', giveUp)
      this.#server.emit('connection', secured)
    })
    secured.on('error', (error: Error) => log.debug({ host, err: error }, 'intercepted connection failed'))
    secured.setTimeout(this.#firstRequestMs, () => {
      if (!this.#trusting.has(secured)) secured.destroy()
    })
    secured.once('close', () => {
      socket.destroy()
      if (!this.#trusting.has(secured)) onUntrusted()
    })
  }
}
