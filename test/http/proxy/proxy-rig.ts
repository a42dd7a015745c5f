import { once } from 'node:events'
import http, { type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import net, { type AddressInfo } from 'node:net'
import type { Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Registry } from 'prom-client'
import { ShoalError, silentLogger, type Logger } from '../../../src/core/index.ts'
import type { NamedBlob } from '../../../src/http/blob-route.ts'
import type { CertificateAuthority } from '../../../src/http/proxy/authority.ts'
import type { Egress, ForwardedAnswer, ForwardedRequest, TunnelTarget } from '../../../src/http/proxy/egress.ts'
import { ForwardProxy, type ForwardProxyOptions } from '../../../src/http/proxy/forward-proxy.ts'
import { createProxyMetrics, type ProxyOutcome } from '../../../src/http/proxy/metrics.ts'

/** The one registry whose blobs are cached, and what its blobs are. */
export const REGISTRY = 'registry.test'
export const DIGEST = `sha256:${'ab'.repeat(32)}`
const END = '\r\n\r\n'
export const BLOB_PATH = `/v2/library/app/blobs/${DIGEST}`

/** Takes every host for the one server at `port`, and remembers what it was asked for. */
export class FakeEgress implements Egress {
  readonly forwarded: ForwardedRequest[] = []
  readonly tunnelled: TunnelTarget[] = []
  port = 0
  /** Thrown instead of connecting. */
  failure: Error | undefined
  /** Given instead of connecting. */
  answer: ((request: ForwardedRequest) => Promise<ForwardedAnswer>) | undefined

  async forward(asked: ForwardedRequest): Promise<ForwardedAnswer> {
    this.forwarded.push(asked)
    if (this.failure !== undefined) throw this.failure
    if (this.answer !== undefined) return this.answer(asked)
    const { method, url, headers, body, signal } = asked
    const request = http.request({
      host: '127.0.0.1',
      port: this.port,
      method,
      path: `${url.pathname}${url.search}`,
      headers,
      signal,
      agent: false,
    })
    if (body === undefined) request.end()
    else pipeline(body, request).catch(() => undefined)
    const [answer] = (await once(request, 'response')) as [IncomingMessage]
    request.on('error', () => undefined)
    return {
      status: answer.statusCode ?? 0,
      statusText: answer.statusMessage ?? '',
      headers: answer.rawHeaders,
      body: answer,
    }
  }

  async tunnel(target: TunnelTarget): Promise<Duplex> {
    this.tunnelled.push(target)
    if (this.failure !== undefined) throw this.failure
    const socket = net.connect({ host: '127.0.0.1', port: this.port, allowHalfOpen: true })
    await once(socket, 'connect', { signal: target.signal })
    return socket
  }
}

export interface ProxyRigOptions extends Partial<ForwardProxyOptions> {
  readonly authority?: CertificateAuthority
  readonly log?: Logger
  readonly serveBlob?: (
    request: IncomingMessage,
    response: ServerResponse,
    asked: NamedBlob,
    signal: AbortSignal,
  ) => Promise<void>
  /** Whether what was asked for before is at hand. */
  readonly isAtHand?: () => boolean
  /** What every host answers. */
  readonly upstream?: RequestListener
}

/** A forward proxy on a listener of its own, in front of one server that is every host. */
export async function openProxy(options: ProxyRigOptions = {}) {
  const { authority, isAtHand, log = silentLogger, serveBlob, upstream = echo, ...rest } = options
  const egress = new FakeEgress()
  const served: NamedBlob[] = []
  const registry = new Registry()
  const proxy: ForwardProxy = new ForwardProxy(
    {
      egress,
      isRegistry: name => name === REGISTRY || name === 'docker.io',
      serveBlob: async (request, response, asked, signal) => {
        served.push(asked)
        if (serveBlob !== undefined) return serveBlob(request, response, asked, signal)
        response.end(`cached ${asked.repository}`)
      },
      serveNow: (_request, response, { key }) => {
        if (isAtHand?.() !== true) return false
        response.end(`at hand ${key.repository}`)
        return true
      },
      ...(authority === undefined ? {} : { authority }),
      metrics: createProxyMetrics(registry, () => proxy.tunnels),
      log,
    },
    { intercept: [], rules: [], via: '1.1 shoal-test', ...rest },
  )
  const origin = await listen(http.createServer({ requestTimeout: 0 }, upstream))
  egress.port = origin.port
  const server = http.createServer({ requestTimeout: 0 }, proxy.handle).on('connect', proxy.connect)
  const own = await listen(server)
  const count = async (outcome: ProxyOutcome): Promise<number> => {
    const metric = await registry.getSingleMetric('shoal_proxy_requests_total')?.get()
    return metric?.values.find(({ labels }) => labels['outcome'] === outcome)?.value ?? 0
  }
  return {
    proxy,
    egress,
    /** What was handed to the cache. */
    served,
    port: own.port,
    metrics: registry,
    count,
    /** One request in absolute-form, its answer read to the end. */
    async fetch(url: string, init: { method?: string; headers?: readonly string[]; body?: string } = {}) {
      const request = http.request({
        host: '127.0.0.1',
        port: own.port,
        path: url,
        method: init.method ?? 'GET',
        headers: ['Host', URL.canParse(url) ? new URL(url).host : 'nowhere', ...(init.headers ?? [])],
        agent: false,
      })
      request.end(init.body)
      const [answer] = (await once(request, 'response')) as [IncomingMessage]
      return { status: answer.statusCode, headers: answer.headers, raw: answer.rawHeaders, body: await text(answer) }
    },
    async [Symbol.asyncDispose]() {
      proxy.close()
      await own.close()
      await origin.close()
    },
  }
}

export type ProxyRig = Awaited<ReturnType<typeof openProxy>>

/** Answers with the request: its line, its headers, and its body. */
export const echo: RequestListener = (request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => {
    const { method, url, rawHeaders } = request
    response.end(JSON.stringify({ method, url, headers: rawHeaders, body: Buffer.concat(chunks).toString() }))
  })
}

export interface Echoed {
  readonly method: string
  readonly url: string
  readonly headers: readonly string[]
  readonly body: string
}

export function echoed(body: string): Echoed {
  return JSON.parse(body) as Echoed
}

/** A server on a free port of 127.0.0.1, whose close() cuts its connections. */
export async function listen(server: net.Server): Promise<{ readonly port: number; close(): Promise<void> }> {
  const sockets = new Set<net.Socket>()
  server.on('connection', (socket: net.Socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Sends `bytes` on a new connection and reads until the other side ends it. */
export async function exchange(port: number, bytes: string | Buffer): Promise<string> {
  const socket = net.connect(port, '127.0.0.1')
  socket.write(bytes)
  return text(socket)
}

/** A connection after a CONNECT, and the head of the answer to it. */
export async function openTunnel(
  port: number,
  target: string,
  headers: readonly string[] = [],
): Promise<{ readonly socket: net.Socket; readonly head: string }> {
  const socket = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true })
  socket.on('error', () => undefined)
  socket.write([`CONNECT ${target} HTTP/1.1`, `Host: ${target}`, ...headers, '', ''].join('\r\n'))
  let answer = ''
  while (!answer.includes(END)) {
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    answer += chunk.toString('latin1')
  }
  socket.pause()
  const end = answer.indexOf(END) + END.length
  if (answer.length > end) socket.unshift(Buffer.from(answer.slice(end), 'latin1'))
  return { socket, head: answer.slice(0, end) }
}

/** Reads to the end, and leaves the other direction open. */
export async function text(stream: Readable): Promise<string> {
  return (await bytes(stream)).toString()
}

/** Reads to the end, and leaves the other direction open. */
export async function bytes(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks)
}

export function upstreamError(code: 'ERR_ORIGIN_UNKNOWN' | 'ERR_UPSTREAM_TIMEOUT' | 'ERR_UPSTREAM_TRANSPORT') {
  return new ShoalError(code, `scripted ${code}`)
}
