import fs from 'node:fs/promises'
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, ListenOptions, Socket } from 'node:net'
import net from 'node:net'
import path from 'node:path'
import type { Duplex } from 'node:stream'
import { systemCode } from '../core/index.ts'
import { refuseConnect } from './proxy/refusals.ts'
import { METHOD_NOT_ALLOWED, NOT_A_PROXY } from './registry-error.ts'

/** Where to listen. Port 0 takes any free one. */
export type Address =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }

/** Idle connections of clients are kept this long, longer than containerd and nydusd keep theirs. */
const KEEP_ALIVE_MS = 90_000
/** From the first byte of a request, or on a new connection from its beginning, to the end of the request's head. */
const HEAD_MS = 60_000
const SOCKET_MODE = 0o660
/** How often idle connections are looked for while draining. */
const SWEEP_MS = 20

export interface ListenerOptions {
  readonly address: Address
  /** Permissions of a unix socket. */
  readonly mode?: number
  /** Takes over the connection of a CONNECT request. Absent: tunnels are refused. */
  readonly onConnect?: (request: IncomingMessage, socket: Duplex, head: Buffer) => void
  /** How long a client may take for the head of a request; it is looked at twice in this time. Default: a minute. */
  readonly headTimeoutMs?: number
}

/** One HTTP server on one address. Who opens it closes it. */
export class Listener {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  /** What was asked for last on each connection. */
  readonly #answers = new WeakMap<Duplex, ServerResponse>()
  /** Connections that are somebody else's since a CONNECT. */
  readonly #tunnels = new WeakSet<Duplex>()
  readonly #address: Address

  private constructor(server: Server, address: Address) {
    this.#server = server
    this.#address = address
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
    // Node's own, which its close() calls, cuts answers that have been handed over but not been sent.
    server.closeIdleConnections = () => this.#sweep()
  }

  /** Rejects with the system's error (EADDRINUSE, EACCES ...). A dead socket file is replaced; a live one is EADDRINUSE. */
  static async open(handler: RequestListener, options: ListenerOptions): Promise<Listener> {
    const { address, headTimeoutMs = HEAD_MS, mode = SOCKET_MODE, onConnect: takeOver = refuseTunnel } = options
    const server = createServer({
      keepAliveTimeout: KEEP_ALIVE_MS,
      noDelay: true,
      // Whoever uploads through the forward proxy may take longer than Node's five minutes.
      requestTimeout: 0,
      // Where requests have no limit, Node has none for their heads either.
      headersTimeout: headTimeoutMs,
      connectionsCheckingInterval: headTimeoutMs / 2,
    })
    const listener = new Listener(server, address)
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      listener.#answers.set(request.socket, response)
      handler(request, response)
    })
    // Without a listener for it, Node would cut such a connection without a word.
    server.on('connect', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      listener.#tunnels.add(socket)
      takeOver(request, socket, head)
    })
    if (address.kind === 'unix') await clearSocket(address.path)
    await listen(server, address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port })
    if (address.kind === 'unix') await fs.chmod(address.path, mode)
    return listener
  }

  /** `127.0.0.1:65001`, `[::1]:65001` or `unix:/path`. */
  get address(): string {
    if (this.#address.kind === 'unix') return `unix:${this.#address.path}`
    const { address, family, port } = this.#server.address() as AddressInfo
    return family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`
  }

  get connections(): number {
    return this.#sockets.size
  }

  /** Takes no new connection, lets requests under way finish for at most `deadlineMs`, then cuts them. Repeatable. */
  async close(deadlineMs = 0): Promise<void> {
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    // A connection becomes idle when its request has been answered.
    const sweeper = setInterval(() => this.#sweep(), SWEEP_MS)
    const deadline = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy()
    }, deadlineMs)
    await closed
    clearInterval(sweeper)
    clearTimeout(deadline)
  }

  /** Ends connections without a request under way. */
  #sweep(): void {
    for (const socket of this.#sockets) if (this.#isIdle(socket)) socket.destroy()
  }

  #isIdle(socket: Socket): boolean {
    if (this.#tunnels.has(socket)) return false
    const answer = this.#answers.get(socket)
    // Some clients connect ahead of their needs.
    return answer === undefined ? socket.bytesRead === 0 : answer.writableFinished
  }
}

function refuseTunnel(_request: IncomingMessage, socket: Duplex): void {
  // Whoever asked may be gone before the answer is out.
  socket.on('error', () => undefined)
  refuseConnect(socket, { ...METHOD_NOT_ALLOWED, message: NOT_A_PROXY.message })
}

function listen(server: Server, where: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(where, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

/** Removes the socket file of a process that is gone, and no other kind of file: then there is EADDRINUSE. */
async function clearSocket(file: string): Promise<void> {
  await fs.mkdir(path.dirname(file), { recursive: true })
  const known = await fs.lstat(file).catch(() => undefined)
  if (known?.isSocket() !== true) return
  const alive = await new Promise<boolean>(resolve => {
    const probe = net.connect(file)
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', error => resolve(systemCode(error) !== 'ECONNREFUSED' && systemCode(error) !== 'ENOENT'))
  })
  if (!alive) await fs.rm(file, { force: true })
}
