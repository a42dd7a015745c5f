import fs from 'node:fs/promises'
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
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
const SOCKET_MODE = 0o660
/** How often idle connections are looked for while draining. */
const SWEEP_MS = 20

export interface ListenerOptions {
  readonly address: Address
  /** Permissions of a unix socket. */
  readonly mode?: number
  /** Takes over the connection of a CONNECT request. Absent: tunnels are refused. */
  readonly onConnect?: (request: IncomingMessage, socket: Duplex, head: Buffer) => void
}

/** One HTTP server on one address. Who opens it closes it. */
export class Listener {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  readonly #address: Address

  private constructor(server: Server, address: Address) {
    this.#server = server
    this.#address = address
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
  }

  /** Rejects with the system's error (EADDRINUSE, EACCES ...). A dead socket file is replaced; a live one is EADDRINUSE. */
  static async open(handler: RequestListener, options: ListenerOptions): Promise<Listener> {
    const { address, mode = SOCKET_MODE, onConnect } = options
    // Whoever uploads through the forward proxy may take longer than Node's five minutes.
    const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS, noDelay: true, requestTimeout: 0 }, handler)
    // Without a listener for it, Node would cut such a connection without a word.
    server.on('connect', onConnect ?? refuseTunnel)
    const listener = new Listener(server, address)
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
    // A connection becomes idle when its request has been answered, and Node closes only those that are idle when asked.
    const sweeper = setInterval(() => this.#server.closeIdleConnections(), SWEEP_MS)
    const deadline = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy()
    }, deadlineMs)
    this.#server.closeIdleConnections()
    await closed
    clearInterval(sweeper)
    clearTimeout(deadline)
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

/** Removes the socket file of a process that is gone. */
async function clearSocket(file: string): Promise<void> {
  await fs.mkdir(path.dirname(file), { recursive: true })
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
