import { randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import {
  ShoalError,
  formatContentRange,
  parseDigest,
  parseRepositoryName,
  rangeLength,
  type BlobKey,
  type ByteRange,
  type Logger,
} from '../core/index.ts'
import { presenceOf, type BlobReader, type OpenBlob, type Presence } from '../blobs/index.ts'
import {
  blobHeaders,
  firstBytesOf,
  selectionOf,
  serverTiming,
  safeMediaType,
  singleRange,
  type Described,
} from './blob-headers.ts'
import { writeBody } from './body-writer.ts'
import { taskHeaders, wishesOf, type Wishes } from './dragonfly.ts'
import { statusOf, type HttpMetrics } from './metrics.ts'
import { planMultipart, type MultipartPlan } from './multipart.ts'
import { PieceSource, type Piece, type PieceOptions } from './pieces.ts'
import { answerFailure, notStored, sendError, unknownBlob } from './registry-error.ts'

/** A blob as a request names it: not validated yet. */
export interface NamedBlob {
  /** A key of the table of origins. */
  readonly registry: string
  readonly repository: string
  readonly digest: string
}

/** What a request asks for, checked. */
export interface AskedBlob {
  readonly key: BlobKey
  /** Echoed as OCI-Namespace when the client named one. */
  readonly namespace: string | undefined
}

/** Checks the names in a request for a blob. Throws ERR_DIGEST_INVALID or ERR_NAME_INVALID. */
export function askedBlob({ registry, repository, digest }: NamedBlob, namespace?: string): AskedBlob {
  return {
    key: { digest: parseDigest(digest), registry, repository: parseRepositoryName(repository) },
    namespace: namespace === undefined ? undefined : registry,
  }
}

/** Below this, copying the bytes costs less than a second system call. */
const MIN_SENDFILE_BYTES = 16 * 1024
/** Above this, making sure of every block would hold the event loop; longer bodies go in pieces. */
const MAX_SENDFILE_BYTES = 1024 * 1024

/** For answers that nobody can abort, because they are given at once. */
const NEVER = new AbortController().signal

/** What came from the page cache took less than the format can say. */
const AT_ONCE = serverTiming({ store: 0 })

interface Context {
  readonly response: ServerResponse
  readonly key: BlobKey
  readonly info: Described
  /** Known here and readable for this caller. */
  readonly open: OpenBlob | undefined
  readonly namespace: string | undefined
  readonly wishes: Wishes | undefined
  readonly options: PieceOptions
  /** The first bytes came from the origin with the news of the blob. */
  readonly begun: boolean
  /** Milliseconds that the origin took to tell of the blob. */
  readonly waited: number
}

/** HEAD and GET of blobs. */
export class BlobRoute {
  readonly #reader: BlobReader
  readonly #metrics: HttpMetrics
  readonly #log: Logger
  readonly #source: PieceSource

  constructor(deps: { reader: BlobReader; metrics: HttpMetrics; log: Logger }) {
    this.#reader = deps.reader
    this.#metrics = deps.metrics
    this.#log = deps.log
    this.#source = new PieceSource(deps)
  }

  /**
   * The whole of an answer, counted, to a GET or HEAD for a blob that somebody else has read out of the request. Never rejects: every
   * failure becomes an answer, or a destroyed connection. `signal`: the client has left.
   */
  async serve(
    request: IncomingMessage,
    response: ServerResponse,
    named: NamedBlob,
    signal: AbortSignal,
  ): Promise<void> {
    const began = performance.now()
    response.once('close', () => {
      this.#metrics.served('blob', statusOf(response), (performance.now() - began) / 1000)
    })
    try {
      const asked = askedBlob(named)
      if (request.method === 'GET' && this.#sendNow(request, response, asked)) return
      await this.handle(request, response, asked, signal)
    } catch (error: unknown) {
      answerFailure(response, error, { signal, log: this.#log })
    }
  }

  /**
   * The whole of an answer, counted, to a GET for a blob that lies in the page cache; in this turn of the event loop, without anything that
   * only waiting needs. False: it takes more than that, and nothing was sent.
   */
  serveNow(request: IncomingMessage, response: ServerResponse, asked: AskedBlob): boolean {
    if (request.method !== 'GET') return false
    try {
      if (!this.#sendNow(request, response, asked)) return false
    } catch (error: unknown) {
      answerFailure(response, error, { signal: NEVER, log: this.#log })
    }
    this.#metrics.served('blob', response.statusCode, 0)
    return true
  }

  /** Answers a plain GET of one range, or of a small blob, from the page cache. False: it takes more than that, and nothing was sent. */
  #sendNow(request: IncomingMessage, response: ServerResponse, { key, namespace }: AskedBlob): boolean {
    const { headers } = request
    if (headers['if-none-match'] !== undefined || headers['if-range'] !== undefined) return false
    const open = this.#reader.lookup(key, headers.authorization)
    if (open === undefined) return false
    const whole = headers.range === undefined
    const range = whole ? { start: 0, end: open.size } : singleRange(headers.range, open.size)
    if (range === undefined) return false
    const wishes = wishesOf(request)
    if (wishes?.refusal !== undefined) return false
    const status = whole ? 200 : 206
    const head = (): void => {
      response.writeHead(
        status,
        rangeHeaders({ key, info: open, open, namespace, wishes }, status, range, 'hit', AT_ONCE),
      )
    }
    const length = range.end - range.start
    const socket = length < MIN_SENDFILE_BYTES || length > MAX_SENDFILE_BYTES ? undefined : descriptorOf(response)
    if (socket !== undefined && open.canSendNow(range.start, length)) {
      head()
      const options = readOptions(headers.authorization, wishes)
      this.#sendFile(response, socket, { key, open, options }, range)
    } else {
      const piece = this.#source.atOnce(open, range)
      if (piece === undefined) return false
      head()
      response.end(piece.bytes, piece.release)
    }
    open.touch()
    if (!whole) this.#prefetch({ key, info: open, open, wishes }, headers.authorization)
    return true
  }

  /** The head has been written; the body goes from the page cache to the socket as far as the socket takes it, the rest in pieces. */
  #sendFile(
    response: ServerResponse,
    socket: number,
    { key, open, options }: { key: BlobKey; open: OpenBlob; options: PieceOptions },
    range: ByteRange,
  ): void {
    response.flushHeaders()
    // Bytes that still wait in user space come first.
    const isClear = response.socket?.writableLength === 0
    const start = range.start + (isClear ? open.sendNow(socket, range.start, range.end - range.start) : 0)
    if (start === range.end) {
      response.end()
      return
    }
    const rest = this.#source.stored(key, open, { start, end: range.end }, options)
    writeBody(response, rest).catch((error: unknown) => this.#cut(response, key, error))
  }

  /** Rejects only while nothing has been sent; a body that cannot be completed destroys the connection instead. */
  async handle(
    request: IncomingMessage,
    response: ServerResponse,
    { key, namespace }: AskedBlob,
    signal: AbortSignal,
  ): Promise<void> {
    const wishes = wishesOf(request)
    if (wishes?.refusal !== undefined) {
      sendError(response, wishes.refusal)
      return
    }
    const { authorization } = request.headers
    const options = { signal, ...readOptions(authorization, wishes) }
    const open = this.#reader.lookup(key, authorization)
    const began = performance.now()
    const info = open ?? (await this.#stat(request, key, options))
    const waited = performance.now() - began
    if (info === undefined) {
      sendError(response, options.storedOnly ? notStored(key.digest) : unknownBlob(key.digest))
      return
    }
    const context = {
      response,
      key,
      info,
      open,
      namespace,
      wishes,
      options,
      waited,
      begun: open === undefined && 'begun' in info && info.begun,
    }
    const selection = selectionOf(request, key.digest, info.size)
    if (selection.kind === 'not-modified') {
      response.writeHead(304, headersOf(context)).end()
      return
    }
    const whole = { start: 0, end: info.size }
    const ranges = selection.kind === 'whole' ? [whole] : selection.ranges
    if (options.storedOnly && !ranges.every(range => open !== undefined && presenceOf(open, range) === 'hit'))
      sendError(response, notStored(key.digest))
    else if (request.method === 'HEAD') this.#sendHead(context, whole)
    else if (selection.kind === 'whole') await this.#sendRange(context, 200, whole)
    else if (ranges.length === 1) await this.#sendRange(context, 206, ranges[0] ?? whole)
    else await this.#sendMultipart(context, ranges)
    if (response.statusCode === 206 && !response.destroyed) this.#prefetch(context, authorization)
  }

  #stat(request: IncomingMessage, key: BlobKey, options: PieceOptions): ReturnType<BlobReader['stat']> {
    if (options.storedOnly) return Promise.resolve(undefined)
    return this.#reader.stat(key, { ...options, first: firstBytesOf(request) })
  }

  /** The rest of a blob of which a range has been answered, when the client wishes it. Its failure concerns no answer. */
  #prefetch(
    { key, info: { size }, open, wishes }: Pick<Context, 'key' | 'info' | 'open' | 'wishes'>,
    authorization: string | undefined,
  ): void {
    if (wishes?.prefetch !== true || wishes.storedOnly || open?.state === 'complete') return
    this.#reader
      .prefetch(key, [{ start: 0, end: size }], { authorization })
      .catch((error: unknown) => this.#log.debug({ digest: key.digest, err: error }, 'not prefetched'))
  }

  #sendHead(context: Context, whole: ByteRange): void {
    const { response, info, open, waited } = context
    const cache = open === undefined ? 'miss' : presenceOf(open, whole)
    const headers = headersOf(context)
    headers.push(
      'Content-Length',
      String(info.size),
      'X-Cache',
      cache,
      'Server-Timing',
      serverTiming(open === undefined ? { origin: waited } : { store: 0 }),
    )
    response.writeHead(200, headers).end()
  }

  async #sendRange(context: Context, status: 200 | 206, range: ByteRange): Promise<void> {
    const { response, key, info, open, options } = context
    open?.touch()
    const piece = open === undefined ? undefined : this.#source.atOnce(open, range)
    if (piece !== undefined) {
      response.writeHead(status, rangeHeaders(context, status, range, 'hit', AT_ONCE))
      response.end(piece.bytes, piece.release)
      return
    }
    const body = await this.#source.body(key, open, range, options)
    if (body === undefined) {
      sendError(response, unknownBlob(key.digest))
      return
    }
    const first = await body.pieces.next()
    response.writeHead(
      status,
      rangeHeaders(
        context,
        status,
        range,
        context.begun ? 'miss' : body.presence,
        serverTiming(body.timings(context.waited)),
      ),
    )
    if (info.size === 0) response.end()
    else await this.#send(context, resume(first, body.pieces))
  }

  async #sendMultipart(context: Context, ranges: readonly ByteRange[]): Promise<void> {
    const { response, info, open } = context
    const plan = planMultipart(ranges, info.size, safeMediaType(info.mediaType), randomBytes(16).toString('hex'))
    const presences = ranges.map(range => (open === undefined ? 'miss' : presenceOf(open, range)))
    const cache = presences.every(presence => presence === presences[0]) ? (presences[0] ?? 'miss') : 'partial'
    const began = performance.now()
    const pieces = this.#parts(context, plan)
    const first = await pieces.next()
    const headers = headersOf({ ...context, info: { mediaType: plan.contentType } })
    const spent = performance.now() - began
    const timing = serverTiming(cache === 'hit' ? { store: spent } : { origin: context.waited + spent })
    headers.push('Content-Length', String(plan.contentLength), 'X-Cache', cache, 'Server-Timing', timing)
    response.writeHead(206, headers)
    await this.#send(context, resume(first, pieces))
  }

  /** The first bytes of a part are in hand before its head is handed over. */
  async *#parts(context: Context, plan: MultipartPlan): AsyncGenerator<Piece, void, undefined> {
    const { key, open, options } = context
    for (const { head, range } of plan.parts) {
      const body = await this.#source.body(key, open, range, options)
      if (body === undefined) throw new ShoalError('ERR_BLOB_UNAVAILABLE', `no source has ${key.digest} any longer`)
      try {
        const first = await body.pieces.next()
        yield { bytes: head }
        if (first.done !== true) yield first.value
        yield* body.pieces
      } finally {
        await body.pieces.return()
      }
    }
    yield { bytes: plan.tail }
  }

  async #send(context: Context, pieces: AsyncIterable<Piece>): Promise<void> {
    try {
      await writeBody(context.response, pieces)
    } catch (error: unknown) {
      this.#cut(context.response, context.key, error)
    }
  }

  #cut(response: ServerResponse, key: BlobKey, error: unknown): void {
    const level = response.destroyed ? 'debug' : 'warn'
    this.#log[level]({ digest: key.digest, err: error }, 'body cut')
    response.destroy()
  }
}

/** How bytes are read for a request with these wishes. */
function readOptions(authorization: string | undefined, wishes: Wishes | undefined): PieceOptions {
  return { authorization, urgency: wishes?.urgency ?? 'demand', storedOnly: wishes?.storedOnly ?? false }
}

/** Headers of every answer about a blob. */
function headersOf({
  key,
  info,
  open,
  namespace,
  wishes,
}: Pick<Context, 'key' | 'open' | 'namespace' | 'wishes'> & { readonly info: Pick<Described, 'mediaType'> }): string[] {
  const headers = blobHeaders(key.digest, info, namespace)
  if (wishes !== undefined) headers.push(...taskHeaders(key.digest, open?.state === 'complete'))
  return headers
}

function rangeHeaders(
  context: Pick<Context, 'key' | 'info' | 'open' | 'namespace' | 'wishes'>,
  status: 200 | 206,
  range: ByteRange,
  cache: Presence,
  timing: string,
): string[] {
  const headers = headersOf(context)
  headers.push('Content-Length', String(rangeLength(range)), 'X-Cache', cache, 'Server-Timing', timing)
  if (status === 206) headers.push('Content-Range', formatContentRange(range, context.info.size))
  return headers
}

/** An iteration of which the first result has already been taken. */
async function* resume(
  first: IteratorResult<Piece, void>,
  rest: AsyncGenerator<Piece, void, undefined>,
): AsyncGenerator<Piece, void> {
  if (first.done === true) return
  try {
    yield first.value
    yield* rest
  } finally {
    await rest.return()
  }
}

/**
 * The descriptor of a plain connection; one with TLS has a descriptor as well, and what is written there is not encrypted. Node has no public
 * name for it; without it bodies are copied.
 */
function descriptorOf(response: ServerResponse): number | undefined {
  const { socket } = response as { socket: (Socket & { readonly _handle?: { readonly fd?: number } | null }) | null }
  const fd = socket instanceof TLSSocket ? undefined : socket?._handle?.fd
  return fd !== undefined && fd >= 0 ? fd : undefined
}
