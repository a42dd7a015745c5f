import { once, setMaxListeners } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { formatContentRange, parseRangeHeader, resolveRange, type ByteRange } from '../../src/core/index.ts'
import { contentOf, digestOf, type BlobContent } from './generated-blob.ts'
import { ScriptedAuth, type PlainAnswer, type ScriptedAuthOptions } from './scripted-auth.ts'

export { bytesOf, contentOf, digestOf, generatedBlob, type BlobContent } from './generated-blob.ts'
export { basic, type ScriptedAuthOptions } from './scripted-auth.ts'

/** What the origin does wrong, or differently, with one request. Several may be combined. */
export interface Fault {
  /** Before anything is answered. */
  readonly delayMs?: number
  /** The connection is reset: before the headers, or after so many bytes of the body. */
  readonly reset?: 'before-headers' | number
  /** The body ends cleanly after so many bytes, in an answer that names no length. */
  readonly truncateAfter?: number
  /** The body says so much, then nothing more, and the connection stays open. */
  readonly stallAfter?: number
  /** Bytes that the body has beyond its proper end; in an answer that names no length. */
  readonly excess?: number
  /** The length is not named: the body is chunked. */
  readonly chunked?: boolean
  readonly wrongBytes?: boolean
  readonly ignoreRange?: boolean
  /** Claims a content coding. */
  readonly encoding?: string
  /** So much per second on each connection. */
  readonly bytesPerSecond?: number
  /** Answers with this status and `body`, whatever was asked for. */
  readonly status?: number
  readonly body?: string
  /** Laid over the headers of the answer; '' removes one. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>>
}

export interface SeenRequest {
  readonly method: string
  /** With the query. */
  readonly url: string
  readonly path: string
  readonly headers: http.IncomingHttpHeaders
  /** Of a POST. */
  readonly body: string
  readonly kind: 'blob' | 'manifest' | 'tags' | 'referrers' | 'token' | 'signed' | 'other'
  readonly repository: string | undefined
  /** The digest, or a manifest's tag. */
  readonly reference: string | undefined
  /** Which request of its kind this is, from 0. */
  readonly nth: number
}

export interface ScriptedManifest {
  readonly mediaType: string
  readonly body: Uint8Array
}

export interface ScriptedOriginOptions {
  readonly blobs?: ReadonlyMap<string, BlobContent | Uint8Array>
  /** By `<tag>` or `<digest>`, in every repository. */
  readonly manifests?: ReadonlyMap<string, ScriptedManifest>
  readonly tags?: readonly string[]
  readonly auth?: ScriptedAuthOptions
  readonly fault?: (request: SeenRequest) => Fault | undefined
  /** GETs of blobs are redirected to a signed URL there. */
  readonly cdn?: ScriptedOrigin
  readonly tls?: { readonly cert: string; readonly key: string; readonly clientCa?: string }
  /** Before /v2/. */
  readonly prefix?: string
  /** Default 127.0.0.1. */
  readonly address?: string
  /** Keep a record of every request; default true. */
  readonly record?: boolean
}

export function startScriptedOrigin(options: ScriptedOriginOptions = {}): Promise<ScriptedOrigin> {
  return ScriptedOrigin.start(options)
}

/**
 * A registry, its token service and a content server in one real HTTP(S) server that does as it is told: what it answers is right unless
 * `fault` says otherwise.
 */
export class ScriptedOrigin implements AsyncDisposable {
  readonly blobs: Map<string, BlobContent>
  readonly manifests: Map<string, ScriptedManifest>
  tags: readonly string[]
  fault: (request: SeenRequest) => Fault | undefined
  readonly requests: SeenRequest[] = []
  /** Bytes of bodies handed to connections, by digest. */
  readonly bytesSent = new Map<string, number>()
  readonly auth: ScriptedAuth
  /** Requests being answered now, and the most there ever were. */
  running = 0
  mostRunning = 0
  /** Connections that were ever made. */
  connected = 0
  readonly #counts = new Map<SeenRequest['kind'], number>()
  readonly #options: ScriptedOriginOptions
  readonly #server: http.Server
  readonly #sockets = new Set<Socket>()
  readonly #signatures = new Set<string>()
  /** Cuts short every delay. */
  readonly #closing = new AbortController()
  #signed = 0

  private constructor(options: ScriptedOriginOptions) {
    this.#options = options
    // Every paced answer listens.
    setMaxListeners(0, this.#closing.signal)
    this.blobs = new Map(
      [...(options.blobs ?? [])].map(([digest, blob]) => [digest, blob instanceof Uint8Array ? contentOf(blob) : blob]),
    )
    this.manifests = new Map(options.manifests ?? [])
    this.tags = options.tags ?? []
    this.fault = options.fault ?? (() => undefined)
    this.auth = new ScriptedAuth(options.auth ?? { kind: 'none' })
    const { tls } = options
    const handle = (request: http.IncomingMessage, response: http.ServerResponse): void => {
      void this.#handle(request, response)
    }
    this.#server =
      tls === undefined
        ? http.createServer(handle)
        : https.createServer(
            {
              cert: tls.cert,
              key: tls.key,
              ...(tls.clientCa === undefined ? {} : { ca: tls.clientCa, requestCert: true, rejectUnauthorized: true }),
            },
            handle,
          )
    this.#server.on('connection', (socket: Socket) => {
      this.connected += 1
      this.#sockets.add(socket)
      socket.on('close', () => this.#sockets.delete(socket))
      socket.on('error', () => undefined)
    })
  }

  static async start(options: ScriptedOriginOptions): Promise<ScriptedOrigin> {
    const origin = new ScriptedOrigin(options)
    origin.#server.listen(0, options.address ?? '127.0.0.1')
    await once(origin.#server, 'listening')
    return origin
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** `address:port`. */
  get host(): string {
    const address = this.#options.address ?? '127.0.0.1'
    return `${address.includes(':') ? `[${address}]` : address}:${this.port}`
  }

  /** Without the prefix. */
  get url(): string {
    return `${this.#options.tls === undefined ? 'http' : 'https'}://${this.host}`
  }

  get connections(): number {
    return this.#sockets.size
  }

  count(kind: SeenRequest['kind']): number {
    return this.#counts.get(kind) ?? 0
  }

  add(content: BlobContent | Uint8Array, digest: string = digestOf(content)): string {
    this.blobs.set(digest, content instanceof Uint8Array ? contentOf(content) : content)
    return digest
  }

  addManifest(manifest: ScriptedManifest, tag?: string): string {
    const digest = digestOf(manifest.body)
    this.manifests.set(digest, manifest)
    if (tag !== undefined) this.manifests.set(tag, manifest)
    return digest
  }

  /** A URL from which anyone may read the blob until it is revoked. */
  sign(digest: string): string {
    this.#signed += 1
    const signature = `signature-${this.#signed}`
    this.#signatures.add(signature)
    return `${this.url}/signed/${digest}?X-Signature=${signature}`
  }

  revokeSignatures(): void {
    this.#signatures.clear()
  }

  /** Resets every connection, used or idle. */
  dropConnections(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy()
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return
    const closed = once(this.#server, 'close')
    this.#closing.abort()
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #handle(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    this.running += 1
    this.mostRunning = Math.max(this.mostRunning, this.running)
    try {
      const body = request.method === 'POST' ? await text(request) : ''
      await this.#answer(this.#see(request, body), response)
    } catch (error: unknown) {
      if (!response.destroyed) response.destroy(error as Error)
    } finally {
      this.running -= 1
    }
  }

  #see(request: http.IncomingMessage, body: string): SeenRequest {
    const { headers, method = 'GET', url = '/' } = request
    const path = new URL(url, this.url).pathname
    const prefix = `${this.#options.prefix ?? ''}/v2/`
    const target = kindOf(path.startsWith(prefix) ? path.slice(prefix.length) : undefined, path)
    const nth = this.count(target.kind)
    this.#counts.set(target.kind, nth + 1)
    const seen = { method, url, path, headers, body, nth, ...target }
    if (this.#options.record !== false) this.requests.push(seen)
    return seen
  }

  async #answer(seen: SeenRequest, response: http.ServerResponse): Promise<void> {
    const fault = this.fault(seen) ?? {}
    if (fault.delayMs !== undefined) await delay(fault.delayMs, undefined, this.#closing)
    if (fault.reset === 'before-headers') {
      reset(response)
      return
    }
    const plain = this.#plainAnswer(seen, fault)
    if (plain !== undefined) {
      sendPlain(seen, response, plain, fault)
      return
    }
    await this.#sendBlob(seen, response, fault)
  }

  /** Everything that is not the content of a blob. */
  #plainAnswer(seen: SeenRequest, fault: Fault): PlainAnswer | undefined {
    if (fault.status !== undefined) return { status: fault.status, headers: {}, body: fault.body ?? '' }
    const { kind, method, reference, repository } = seen
    if (kind === 'token' && method === 'POST') return this.auth.exchange(seen.body)
    if (kind === 'token') return this.auth.issue(seen.url, seen.headers.authorization)
    if (kind === 'signed') {
      const signature = new URL(seen.url, this.url).searchParams.get('X-Signature') ?? ''
      if (!this.#signatures.has(signature)) return { status: 403, headers: {}, body: 'signature refused' }
      return this.blobs.has(reference ?? '') ? undefined : { status: 404, headers: {}, body: '' }
    }
    if (repository === undefined) return { status: 404, headers: {}, body: '' }
    const refused = this.auth.check(this.url, repository, seen.headers.authorization)
    if (refused !== undefined) return refused
    if (kind === 'tags') {
      const body = JSON.stringify({ name: repository, tags: this.tags })
      return { status: 200, headers: { 'content-type': 'application/json' }, body }
    }
    if (kind === 'manifest') return this.#manifest(reference ?? '')
    if (kind === 'referrers') {
      const mediaType = 'application/vnd.oci.image.index.v1+json'
      const body = JSON.stringify({ schemaVersion: 2, mediaType, manifests: [] })
      return { status: 200, headers: { 'content-type': mediaType }, body }
    }
    if (!this.blobs.has(reference ?? '') && this.#options.cdn?.blobs.has(reference ?? '') !== true) {
      return error(404, 'BLOB_UNKNOWN')
    }
    if (this.#options.cdn === undefined || method === 'HEAD') return undefined
    return { status: 307, headers: { location: this.#options.cdn.sign(reference ?? '') }, body: '' }
  }

  #manifest(reference: string): PlainAnswer {
    const manifest = this.manifests.get(reference)
    if (manifest === undefined) return error(404, 'MANIFEST_UNKNOWN')
    const { body, mediaType } = manifest
    const digest = reference.includes(':') ? reference : digestOf(body)
    return { status: 200, headers: { 'content-type': mediaType, 'docker-content-digest': digest }, body }
  }

  async #sendBlob(seen: SeenRequest, response: http.ServerResponse, fault: Fault): Promise<void> {
    const digest = seen.reference ?? ''
    const content = this.blobs.get(digest) ?? this.#options.cdn?.blobs.get(digest)
    if (content === undefined) throw new Error(`no blob ${digest}`)
    const specs = fault.ignoreRange === true ? undefined : parseRangeHeader(seen.headers.range)
    const range = specs?.[0] === undefined ? undefined : resolveRange(specs[0], content.size)
    if (specs !== undefined && range === undefined) {
      sendPlain(
        seen,
        response,
        { status: 416, headers: { 'content-range': `bytes */${content.size}` }, body: '' },
        fault,
      )
      return
    }
    const sent = range ?? { start: 0, end: content.size }
    const unnamed = fault.truncateAfter !== undefined || fault.excess !== undefined || fault.chunked === true
    writeHead(response, range === undefined ? 200 : 206, fault, {
      'content-type': 'application/octet-stream',
      'docker-content-digest': digest,
      ...(unnamed ? {} : { 'content-length': String(sent.end - sent.start) }),
      ...(range === undefined ? {} : { 'content-range': formatContentRange(range, content.size) }),
      ...(fault.encoding === undefined ? {} : { 'content-encoding': fault.encoding }),
    })
    if (seen.method === 'HEAD') response.end()
    else await this.#sendBytes(response, content, sent, digest, fault)
  }

  async #sendBytes(
    response: http.ServerResponse,
    content: BlobContent,
    range: ByteRange,
    digest: string,
    fault: Fault,
  ): Promise<void> {
    const resetAfter = typeof fault.reset === 'number' ? fault.reset : Infinity
    const stop = Math.min(
      range.end,
      range.start + Math.min(resetAfter, fault.truncateAfter ?? Infinity, fault.stallAfter ?? Infinity),
    )
    const pace = paceOf(fault.bytesPerSecond, this.#closing.signal)
    response.flushHeaders()
    for (let offset = range.start; offset < stop && !response.destroyed;) {
      const piece = content.read(offset, Math.min(stop - offset, pace.pieceBytes))
      offset += piece.length
      this.bytesSent.set(digest, (this.bytesSent.get(digest) ?? 0) + piece.length)
      await pace.wait(piece.length)
      const goesOn = response.write(fault.wrongBytes === true ? inverted(piece) : piece)
      if (!goesOn) await drained(response)
    }
    if (response.destroyed) return
    if (stop === range.start + resetAfter) {
      await flushed(response)
      reset(response)
    } else if (stop !== range.start + (fault.stallAfter ?? Infinity)) {
      if (fault.excess !== undefined) response.write(Buffer.alloc(fault.excess))
      response.end()
    }
  }
}

function kindOf(inside: string | undefined, path: string): Pick<SeenRequest, 'kind' | 'reference' | 'repository'> {
  if (path === '/token') return { kind: 'token', repository: undefined, reference: undefined }
  if (path.startsWith('/signed/'))
    return { kind: 'signed', repository: undefined, reference: path.slice('/signed/'.length) }
  const match = /^(.+)\/(blobs|manifests|tags|referrers)\/([^/]+)$/.exec(inside ?? '')
  if (match === null) return { kind: 'other', repository: undefined, reference: undefined }
  const kinds = { blobs: 'blob', manifests: 'manifest', tags: 'tags', referrers: 'referrers' } as const
  return {
    kind: kinds[match[2] as keyof typeof kinds],
    repository: match[1],
    reference: decodeURIComponent(match[3] ?? ''),
  }
}

function error(status: number, code: string): PlainAnswer {
  return { status, headers: { 'content-type': 'application/json' }, body: JSON.stringify({ errors: [{ code }] }) }
}

function sendPlain(seen: SeenRequest, response: http.ServerResponse, answer: PlainAnswer, fault: Fault): void {
  const body = Buffer.from(answer.body)
  writeHead(response, answer.status, fault, { ...answer.headers, 'content-length': String(body.length) })
  response.end(seen.method === 'HEAD' ? undefined : body)
}

function writeHead(
  response: http.ServerResponse,
  status: number,
  fault: Fault,
  headers: Readonly<Record<string, string | string[]>>,
): void {
  const all: Record<string, string | readonly string[]> = { ...headers, ...fault.headers }
  const kept = Object.entries(all).filter(([, value]) => value !== '')
  response.writeHead(status, Object.fromEntries(kept) as http.OutgoingHttpHeaders)
}

function reset(response: http.ServerResponse): void {
  response.socket?.resetAndDestroy()
}

/** A server's body may be left by its reader at any time; then there is nothing to wait for. */
async function drained(response: http.ServerResponse): Promise<void> {
  if (response.destroyed) return
  await new Promise<void>(resolve => {
    const done = (): void => {
      response.off('drain', done)
      response.off('close', done)
      resolve()
    }
    response.on('drain', done)
    response.on('close', done)
  })
}

/** Until everything written has been handed to the kernel, so that a reset does not overtake it here. */
async function flushed(response: http.ServerResponse): Promise<void> {
  await new Promise<void>(resolve => {
    response.once('close', resolve)
    response.write('', () => resolve())
  })
}

interface Pace {
  readonly pieceBytes: number
  wait(bytes: number): Promise<void>
}

/** Pieces of a hundredth of a second, each sent when its time has come. */
function paceOf(bytesPerSecond: number | undefined, signal: AbortSignal): Pace {
  if (bytesPerSecond === undefined) return { pieceBytes: Infinity, wait: () => Promise.resolve() }
  const started = performance.now()
  let sent = 0
  return {
    pieceBytes: Math.max(1, Math.floor(bytesPerSecond / 100)),
    wait: async bytes => {
      sent += bytes
      const ahead = started + (sent / bytesPerSecond) * 1000 - performance.now()
      if (ahead > 1) await delay(ahead, undefined, { signal })
    },
  }
}

function inverted(piece: Uint8Array): Uint8Array {
  return piece.map(byte => byte ^ 0xff)
}
