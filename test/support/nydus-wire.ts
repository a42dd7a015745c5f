import dns from 'node:dns'
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import tls from 'node:tls'

export interface WireRequest {
  readonly method: 'GET' | 'HEAD' | 'POST'
  /** Absolute. */
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  /** Of a POST. */
  readonly form?: string | undefined
}

export interface WireAnswer {
  readonly status: number
  /** The first of its name. */
  header(name: string): string | undefined
  /** May be iterated once. Throws when the body is cut or the time is up. */
  readonly body: AsyncIterable<Buffer>
  /** For a body that nobody wants: its connection is not used again. */
  discard(): void
}

/** One way to a server. Throws where no head of an answer came. */
export interface Wire {
  send(request: WireRequest): Promise<WireAnswer>
  close(): void
}

export interface WireOptions {
  /**
   * From the request to the last byte of the answer; undefined: none. nydusd's HTTP client gives so much to the head, and as much again to
   * each piece of the body: whoever answers in time here does so there.
   */
  readonly timeoutMs: number | undefined
  /** PEM, to be trusted besides the public authorities. */
  readonly ca?: string | undefined
}

/** Straight to the server that the URL names. */
export function directWire({ timeoutMs, ca }: WireOptions): Wire {
  const plain = new http.Agent({ keepAlive: true, lookup })
  const secure = new https.Agent({ keepAlive: true, lookup, ...trust(ca) })
  return {
    send: request => {
      const url = new URL(request.url)
      const start = url.protocol === 'https:' ? https.request : http.request
      return exchange(request, timeoutMs, (headers, signal) =>
        start(url, { method: request.method, headers, signal, agent: url.protocol === 'https:' ? secure : plain }),
      )
    },
    close: () => closeAll(plain, secure),
  }
}

/** Through a forward proxy: http URLs in absolute-form, https URLs through a tunnel. */
export function proxyWire(proxy: string, { timeoutMs, ca }: WireOptions): Wire {
  const { hostname, port } = new URL(proxy)
  const plain = new http.Agent({ keepAlive: true })
  const tunnels = new TunnelAgent({ host: hostname, port }, ca)
  return {
    send: request =>
      exchange(request, timeoutMs, (headers, signal) => {
        const url = new URL(request.url)
        const { method } = request
        if (url.protocol === 'https:') return https.request(url, { method, headers, signal, agent: tunnels })
        const target = { host: hostname, port, path: request.url, setHost: false }
        return http.request({ ...target, method, headers: { ...headers, host: url.host }, signal, agent: plain })
      }),
    close: () => closeAll(plain, tunnels),
  }
}

/** To a unix socket, where the path is always `/` and the Host is the socket's name in hex. */
export function socketWire(socketPath: string, { timeoutMs }: WireOptions): Wire {
  const agent = new http.Agent({ keepAlive: true })
  const host = `${Buffer.from(socketPath).toString('hex')}:0`
  return {
    send: request =>
      exchange(request, timeoutMs, (headers, signal) => {
        const { method } = request
        return http.request({ socketPath, path: '/', method, headers: { ...headers, host }, signal, agent })
      }),
    close: () => closeAll(agent),
  }
}

/** Every name below `localhost` is this machine (RFC 6761, 6.3), wherever the resolver does not know it. */
const lookup: net.LookupFunction = (name, options, done) => {
  if (!name.endsWith('.localhost')) dns.lookup(name, options, done)
  else if (options.all === true) done(null, [{ address: '127.0.0.1', family: 4 }])
  else done(null, '127.0.0.1', 4)
}

async function exchange(
  { form, headers, method }: WireRequest,
  timeoutMs: number | undefined,
  start: (headers: Record<string, string>, signal: AbortSignal) => http.ClientRequest,
): Promise<WireAnswer> {
  const signal = timeoutMs === undefined ? new AbortController().signal : AbortSignal.timeout(timeoutMs)
  // An empty body object goes with every GET and HEAD.
  const length = method === 'GET' || form !== undefined ? { 'content-length': String(form?.length ?? 0) } : {}
  const type = form === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' }
  const request = start({ accept: '*/*', ...length, ...type, ...headers }, signal)
  const answered = once(request, 'response') as Promise<[http.IncomingMessage]>
  request.end(form)
  const [response] = await answered
  return {
    status: response.statusCode ?? 0,
    header: name => response.headersDistinct[name]?.[0],
    body: response as AsyncIterable<Buffer>,
    discard: () => {
      response.on('error', () => undefined)
      response.destroy()
    },
  }
}

/** TLS connections through CONNECT, kept for further requests. */
class TunnelAgent extends https.Agent {
  readonly #proxy: { readonly host: string; readonly port: string }
  readonly #ca: string | undefined

  constructor(proxy: { readonly host: string; readonly port: string }, ca: string | undefined) {
    super({ keepAlive: true })
    this.#proxy = proxy
    this.#ca = ca
  }

  /** Node calls it with what it would give to tls.connect(). */
  override createConnection(
    options: https.RequestOptions,
    done?: (error: Error | null, stream: Duplex) => void,
  ): undefined {
    this.#open(options).then(
      socket => done?.(null, socket),
      (error: unknown) => done?.(error as Error, new net.Socket()),
    )
  }

  async #open({ host, port, servername }: https.RequestOptions): Promise<Duplex> {
    const target = `${String(host)}:${String(port)}`
    const request = http.request({
      ...this.#proxy,
      method: 'CONNECT',
      path: target,
      headers: { host: target },
      agent: false,
    })
    request.end()
    const [answer, socket] = (await once(request, 'connect')) as [http.IncomingMessage, net.Socket]
    if (answer.statusCode !== 200) {
      socket.destroy()
      throw new Error(`the proxy answered ${String(answer.statusCode)} to CONNECT`)
    }
    const secured = tls.connect({
      socket,
      host: String(host),
      ...(servername === undefined ? {} : { servername }),
      ...trust(this.#ca),
    })
    await once(secured, 'secureConnect')
    return secured
  }
}

function trust(ca: string | undefined): { ca?: string[] } {
  return ca === undefined ? {} : { ca: [...tls.rootCertificates, ca] }
}

function closeAll(...agents: readonly http.Agent[]): void {
  for (const agent of agents) agent.destroy()
}
