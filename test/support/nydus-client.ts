import { setTimeout as delay } from 'node:timers/promises'
import {
  basicOf,
  parseChallenge,
  tokenRequest,
  type Challenge,
  type NydusUser,
  type NydusVersion,
} from './nydus-token.ts'
import { directWire, proxyWire, socketWire, type Wire, type WireAnswer, type WireRequest } from './nydus-wire.ts'

export type { NydusVersion } from './nydus-token.ts'

export type NydusBackend =
  | {
      readonly type: 'registry'
      readonly scheme: 'http' | 'https'
      readonly host: string
      readonly repo: string
      readonly user?: NydusUser
    }
  /** `addr`: http://host:port, or the path of a unix socket. */
  | { readonly type: 'http-proxy'; readonly addr: string; readonly path: string }

export interface NydusProxy {
  readonly url: string
  readonly pingUrl?: string
  /** Default true. */
  readonly fallback?: boolean
  readonly useHttp?: boolean
}

export interface NydusMirror {
  readonly host: string
  readonly headers?: Readonly<Record<string, string>>
  readonly pingUrl?: string
  /** Default 5. */
  readonly failureLimit?: number
  /** Only 2.2 looks at it. Default false. */
  readonly authThrough?: boolean
}

export interface NydusOptions {
  readonly version: NydusVersion
  readonly backend: NydusBackend
  readonly proxy?: NydusProxy | undefined
  readonly mirrors?: readonly NydusMirror[] | undefined
  /** Of 2.2 and 2.3; 2.4 ignores it. Default 0. */
  readonly retryLimit?: number
  /** Default 5000. */
  readonly timeoutMs?: number
  /** PEM. */
  readonly ca?: string | undefined
  /** Waits between attempts. */
  readonly pause?: (ms: number) => Promise<void>
}

type Way = 'proxy' | 'mirror' | 'direct' | 'socket'
type Purpose = 'blob' | 'redirect' | 'token' | 'ping'

/** One request, and what came of it. */
export interface NydusCall {
  readonly via: Way
  readonly purpose: Purpose
  readonly method: string
  readonly url: string
  /** Undefined: no head of an answer came. */
  readonly status: number | undefined
  /** Until the head, or until there was to be none. */
  readonly ms: number
}

/** What makes a read fail, be it once or for good. */
export class NydusError extends Error {
  /** Of the answer that did it. */
  readonly status: number | undefined
  /** Nobody would notice at once: chunks that do not decompress, or do with wrong bytes. */
  readonly damage: boolean
  readonly proxyRefusal: 403 | 429 | undefined

  constructor(message: string, facts: { status?: number; damage?: boolean; proxyRefusal?: 403 | 429 } = {}) {
    super(message)
    this.status = facts.status
    this.damage = facts.damage ?? false
    this.proxyRefusal = facts.proxyRefusal
  }
}

type Answer = WireAnswer & { readonly via: Way }

interface Attempt {
  readonly prefetch: boolean
  /** "Disable proxy": the request still goes through it, without Dragonfly's headers. */
  disabled: boolean
}

interface Call extends WireRequest {
  readonly purpose: Purpose
  /** A status from 400 on counts as no answer at all. */
  readonly catchStatus: boolean
}

interface MirrorState {
  readonly options: NydusMirror
  failures: number
  enabled: boolean
}

const USER_AGENT = { 'user-agent': 'nydusd/1.0.0' }
const MAX_REDIRECTS = 10
const STREAM_ATTEMPTS = 10

/**
 * nydusd's storage backends, registry and http-proxy, as they behave on the wire. Health threads are functions to call; the refresh of
 * tokens and the change to http after a failed TLS handshake are left out.
 */
export class NydusClient implements AsyncDisposable {
  readonly calls: NydusCall[] = []
  /** Bytes of blobs, by whom they came from. `direct`: from the host of the backend. */
  readonly bytes: Record<Way, number> = { proxy: 0, mirror: 0, direct: 0, socket: 0 }
  /** Requests for blobs that went to the origin because the proxy or the mirrors had failed. */
  fallbacks = 0
  readonly #options: NydusOptions
  readonly #wires: { readonly direct: Wire; readonly proxy: Wire | undefined; readonly socket: Wire | undefined }
  readonly #mirrors: readonly MirrorState[]
  readonly #pause: (ms: number) => Promise<void>
  /** By blob: until the first request has succeeded no other is made. */
  readonly #first = new Map<string, Promise<void>>()
  readonly #redirects = new Map<string, string>()
  #proxyHealthy = true
  #authorization: string | undefined
  #tokensByGet = false
  #freeAt = 0

  constructor(options: NydusOptions) {
    const { backend, ca, mirrors = [], proxy, timeoutMs = 5000, version } = options
    if (mirrors.length > 0 && (proxy !== undefined || version === '2.4')) throw new Error('no such configuration')
    this.#options = options
    this.#pause = options.pause ?? delay
    this.#mirrors = mirrors.map(mirror => ({ options: mirror, failures: 0, enabled: true }))
    const wire = { timeoutMs, ca }
    const isSocket = backend.type === 'http-proxy' && backend.addr.startsWith('/')
    this.#wires = {
      direct: directWire(wire),
      proxy: proxy === undefined ? undefined : proxyWire(proxy.url, wire),
      // The client for sockets has no deadline.
      socket: isSocket ? socketWire(backend.addr, { timeoutMs: undefined }) : undefined,
    }
  }

  get proxyHealthy(): boolean {
    return this.#proxyHealthy
  }

  get enabledMirrors(): number {
    return this.#mirrors.filter(({ enabled }) => enabled).length
  }

  /** Requests for blobs, by the way they went. */
  went(via: Way): number {
    return this.calls.filter(call => call.via === via && call.purpose === 'blob').length
  }

  /** `blob`: the hex of its digest. Rejects with NydusError when all attempts failed. */
  read(blob: string, offset: number, length: number, options: { prefetch?: boolean } = {}): Promise<Buffer> {
    return this.#retrying(options.prefetch ?? false, attempt =>
      this.#alone(blob, () => this.#readOnce(blob, offset, length, attempt)),
    )
  }

  size(blob: string): Promise<number> {
    const attempt = { prefetch: false, disabled: false }
    return this.#alone(blob, async () => {
      const { socket } = this.#wires
      // For the unix socket the status does not matter, and there is a Range.
      const answer =
        socket === undefined
          ? await this.#ask({ method: 'HEAD', url: this.#urlOf(blob), headers: {} }, attempt, true)
          : await this.#send('socket', socket, this.#socketCall('HEAD', 'bytes=0-'))
      const length = answer.header('content-length')
      answer.discard()
      if (length === undefined || !/^\d+$/.test(length)) throw new NydusError('no content length')
      return Number(length)
    })
  }

  /** 2.4's stream_prefetch of a whole blob: without a Range, and with an open one to go on after a failure. */
  async streamPrefetch(blob: string, size: number, from = 0): Promise<Buffer> {
    const { backend, version } = this.#options
    if (version !== '2.4' || backend.type !== 'registry') throw new Error('not implemented there')
    const pieces: Buffer[] = []
    let offset = from
    for (let attempt = 1; ; attempt += 1) {
      try {
        for await (const piece of await this.#stream(blob, offset)) {
          pieces.push(piece)
          offset += piece.length
        }
        if (offset < size) throw new NydusError('the stream ended early')
        return Buffer.concat(pieces)
      } catch (error: unknown) {
        if (attempt === STREAM_ATTEMPTS) throw error
        await this.#pause(100 * attempt)
      }
    }
  }

  /** What the health thread of each mirror does: only one that is disabled is asked, and anything below 500 brings it back. */
  async pingMirrors(): Promise<void> {
    for (const mirror of this.#mirrors.filter(({ enabled }) => !enabled)) {
      const status = await this.#ping(mirror.options.pingUrl ?? `${mirror.options.host}/v2`)
      if (status === undefined || status >= 500) continue
      mirror.enabled = true
      mirror.failures = 0
    }
  }

  /** What the health thread of the proxy does: 200 to 399 is healthy. Without a ping_url it always is. */
  async pingProxy(): Promise<void> {
    const url = this.#options.proxy?.pingUrl
    if (url === undefined) return
    const status = await this.#ping(url)
    this.#proxyHealthy = status !== undefined && isSuccess(status)
  }

  [Symbol.asyncDispose](): Promise<void> {
    for (const wire of Object.values(this.#wires)) wire?.close()
    return Promise.resolve()
  }

  async #readOnce(blob: string, offset: number, length: number, attempt: Attempt): Promise<Buffer> {
    const { socket } = this.#wires
    const range = `bytes=${offset}-${offset + length - 1}`
    if (socket !== undefined)
      return this.#exactly(await this.#send('socket', socket, this.#socketCall('GET', range)), length)
    const request = { method: 'GET', headers: { range } } as const
    const kept = this.#redirects.get(blob)
    if (kept !== undefined) {
      const answer = await this.#call({ ...request, url: kept, purpose: 'redirect', catchStatus: false }, attempt)
      if (answer.status !== 401 && answer.status !== 403) return this.#exactly(answer, length)
      answer.discard()
      this.#redirects.delete(blob)
    }
    const isRegistry = this.#options.backend.type === 'registry'
    const answer = await this.#ask({ ...request, url: this.#urlOf(blob) }, attempt, !isRegistry)
    const location = isRegistry && this.#isFollowed(answer.status) ? answer.header('location') : undefined
    if (location === undefined) return this.#exactly(await caught(answer), length)
    answer.discard()
    // A relative one is an error.
    const { href } = new URL(location)
    const followed = await this.#call({ ...request, url: href, purpose: 'redirect', catchStatus: true }, attempt)
    this.#redirects.set(blob, href)
    return this.#exactly(followed, length)
  }

  async #stream(blob: string, offset: number): Promise<AsyncIterable<Buffer>> {
    const headers: Record<string, string> = offset === 0 ? {} : { range: `bytes=${offset}-` }
    const attempt = { prefetch: true, disabled: false }
    const answer = await this.#ask({ method: 'GET', url: this.#urlOf(blob), headers }, attempt, true)
    return this.#counted(answer)
  }

  /** With the cached credential, and with another one after a 401. */
  async #ask(request: WireRequest, attempt: Attempt, catchStatus: boolean): Promise<Answer> {
    const cached = this.#authorization
    const send = (authorization: string | undefined, caughtToo: boolean): Promise<Answer> => {
      const headers = { ...request.headers, ...(authorization === undefined ? {} : { authorization }) }
      return this.#call({ ...request, headers, purpose: 'blob', catchStatus: caughtToo }, attempt)
    }
    if (this.#options.backend.type === 'http-proxy') return send(undefined, catchStatus)
    let answer = await send(cached, false)
    if (answer.status === 401) {
      if (cached !== undefined) {
        answer.discard()
        answer = await send(undefined, false)
      }
      const challenge = parseChallenge(answer.header('www-authenticate') ?? '', this.#options.version)
      if (challenge !== undefined) {
        answer.discard()
        const authorization = await this.#authorize(challenge, attempt)
        const granted = await send(authorization, catchStatus)
        if (isSuccess(granted.status)) this.#authorization = authorization
        return granted
      }
    }
    return catchStatus ? caught(answer) : answer
  }

  async #authorize(challenge: Challenge, attempt: Attempt): Promise<string> {
    const { backend } = this.#options
    if (challenge.scheme === 'Basic') {
      if (backend.type !== 'registry' || backend.user === undefined)
        throw new NydusError('no credential for Basic', { status: 401 })
      return basicOf(backend.user)
    }
    const answer = await this.#tokenAnswer(challenge, attempt)
    let text = ''
    for await (const piece of answer.body) text += piece.toString('utf8')
    const { token, access_token: other } = JSON.parse(text) as { token?: string; access_token?: string }
    const value = token === undefined || token === '' ? other : token
    if (value === undefined || value === '') throw new NydusError('no token in the answer')
    return `Bearer ${value}`
  }

  async #tokenAnswer(challenge: Challenge, attempt: Attempt): Promise<Answer> {
    if (!this.#tokensByGet) {
      try {
        return await this.#call(this.#tokenCall(challenge, 'POST'), attempt)
      } catch {
        // Then by GET, and from now on.
      }
    }
    const answer = await this.#call(this.#tokenCall(challenge, 'GET'), attempt)
    this.#tokensByGet = true
    return answer
  }

  #tokenCall(challenge: Challenge, method: 'GET' | 'POST'): Call {
    const { backend, version } = this.#options
    const user = backend.type === 'registry' ? backend.user : undefined
    return { ...tokenRequest(challenge, { method, user, version }), purpose: 'token', catchStatus: true }
  }

  /** Proxy, then mirrors, then the origin. */
  async #call(call: Call, attempt: Attempt): Promise<Answer> {
    const { proxy, version } = this.#options
    const isDragonfly = version === '2.4' && proxy !== undefined && !attempt.disabled && call.purpose !== 'token'
    const sent: Call = {
      ...call,
      headers: {
        ...call.headers,
        ...(version === '2.4' ? USER_AGENT : {}),
        ...(isDragonfly ? dragonflyHeaders(attempt) : {}),
      },
    }
    // From 2.4 on, tokens are fetched without the proxy.
    const proxied = version === '2.4' && call.purpose === 'token' ? undefined : await this.#byProxy(sent)
    const answer = proxied ?? (await this.#byMirrors(sent)) ?? (await this.#direct(sent))
    if (isDragonfly && answer.header('x-dragonfly-error-type') === 'proxy') {
      answer.discard()
      const { status } = answer
      throw new NydusError(`the proxy refused with ${status}`, {
        status,
        ...(status === 403 || status === 429 ? { proxyRefusal: status } : {}),
      })
    }
    return answer
  }

  /** Undefined: the next way is to be tried. */
  async #byProxy(call: Call): Promise<Answer | undefined> {
    const { proxy, version } = this.#options
    const wire = this.#wires.proxy
    if (proxy === undefined || wire === undefined) return undefined
    const fallback = proxy.fallback ?? true
    if (!this.#proxyHealthy) {
      if (!fallback && version === '2.4') throw new NydusError('proxy is not healthy and fallback is disabled')
    } else {
      const url = proxy.useHttp === true ? call.url.replace(/^https:/, 'http:') : call.url
      try {
        const answer = await this.#send('proxy', wire, { ...call, url })
        if (!fallback || answer.status < 500) return answer
        answer.discard()
      } catch (error: unknown) {
        if (!fallback) throw error
      }
    }
    if (call.purpose !== 'token') this.fallbacks += 1
    return undefined
  }

  async #byMirrors(call: Call): Promise<Answer | undefined> {
    if (this.#mirrors.length === 0) return undefined
    const isAuthCall = call.purpose === 'token' || call.headers['authorization'] === undefined
    for (const mirror of this.#mirrors.filter(({ enabled }) => enabled)) {
      // Not a failure of the mirror: such calls are none of its business.
      if (this.#options.version === '2.2' && mirror.options.authThrough !== true && isAuthCall) return undefined
      const headers = { ...call.headers, ...mirror.options.headers }
      const { pathname, search } = new URL(call.url)
      const url = `${new URL(mirror.options.host).origin}${pathname}${search}`
      try {
        const answer = await this.#send('mirror', this.#wires.direct, { ...call, headers, url })
        if (answer.status < 500) return answer
        answer.discard()
      } catch {
        mirror.failures += 1
        mirror.enabled = mirror.failures < (mirror.options.failureLimit ?? 5)
      }
    }
    if (call.purpose !== 'token') this.fallbacks += 1
    return undefined
  }

  #direct(call: Call): Promise<Answer> {
    return this.#send('direct', this.#wires.direct, call)
  }

  async #send(via: Way, wire: Wire, call: Call): Promise<Answer> {
    let answer = await this.#exchange(via, wire, call)
    if (this.#options.version === '2.3' && via !== 'socket') {
      for (let hops = 0; isRedirect(answer.status) && hops < MAX_REDIRECTS; hops += 1) {
        const next = new URL(answer.header('location') ?? '', call.url)
        answer.discard()
        const { authorization, ...others } = call.headers
        const keeps = authorization !== undefined && next.host === new URL(call.url).host
        const headers = keeps ? { ...others, authorization } : others
        answer = await this.#exchange(via, wire, { ...call, url: next.href, headers, purpose: 'redirect' })
      }
    }
    return call.catchStatus ? caught(answer) : answer
  }

  async #exchange(via: Way, wire: Wire, { method, purpose, ...rest }: Call): Promise<Answer> {
    const began = performance.now()
    let status: number | undefined
    try {
      const answer = await wire.send({ method, ...rest })
      ;({ status } = answer)
      return { ...answer, via }
    } finally {
      this.calls.push({ via, purpose, method, url: rest.url, status, ms: performance.now() - began })
    }
  }

  async #ping(url: string): Promise<number | undefined> {
    try {
      const call: Call = { method: 'GET', url, headers: {}, purpose: 'ping', catchStatus: false }
      const answer = await this.#exchange('direct', this.#wires.direct, call)
      answer.discard()
      return answer.status
    } catch {
      return undefined
    }
  }

  /** Exactly so many bytes, whatever the headers say. */
  async #exactly(answer: Answer, length: number): Promise<Buffer> {
    const pieces: Buffer[] = []
    let received = 0
    for await (const piece of this.#counted(answer)) {
      received += piece.length
      if (received > length) throw new NydusError('failed to write whole buffer', { status: answer.status })
      pieces.push(piece)
    }
    if (received < length)
      throw new NydusError(`expected ${length} bytes, got ${received}`, {
        status: answer.status,
        damage: this.#options.version !== '2.4',
      })
    return Buffer.concat(pieces)
  }

  async *#counted({ body, via }: Answer): AsyncGenerator<Buffer> {
    for await (const piece of body) {
      this.bytes[via] += piece.length
      yield piece
    }
  }

  async #retrying<T>(prefetch: boolean, operation: (attempt: Attempt) => Promise<T>): Promise<T> {
    const { retryLimit = 0, version } = this.#options
    const isNew = version === '2.4'
    const attempt: Attempt = { prefetch, disabled: false }
    const limit = isNew ? (prefetch ? 1 : 3) : retryLimit
    for (let used = 0; ; used += 1) {
      try {
        return await operation(attempt)
      } catch (error: unknown) {
        const { damage, proxyRefusal } = error instanceof NydusError ? error : new NydusError(String(error))
        if (used === limit || damage || proxyRefusal === 403 || (proxyRefusal === 429 && prefetch)) throw error
        attempt.disabled = isNew && !prefetch && (used + 1 === limit || proxyRefusal === 429)
        if (attempt.disabled) await this.#takeTurn()
        else if (!isNew) await this.#pause(500 * 2 ** used)
        else if (prefetch) await this.#pause(100 + Math.floor(Math.random() * 900))
      }
    }
  }

  /** Last attempts are made once a second. */
  async #takeTurn(): Promise<void> {
    const now = Date.now()
    const wait = Math.max(0, this.#freeAt - now)
    this.#freeAt = now + wait + 1000
    if (wait > 0) await this.#pause(wait)
  }

  async #alone<T>(blob: string, operation: () => Promise<T>): Promise<T> {
    for (let gate = this.#first.get(blob); gate !== undefined; gate = this.#first.get(blob)) {
      await gate
      // Still there: the first one has succeeded.
      if (this.#first.get(blob) === gate) return operation()
    }
    const first = operation()
    const gate = first.then(
      () => undefined,
      () => void this.#first.delete(blob),
    )
    this.#first.set(blob, gate)
    return first
  }

  #isFollowed(status: number): boolean {
    if (this.#options.version === '2.2') return status === 301 || status === 307
    return isRedirect(status)
  }

  #socketCall(method: 'GET' | 'HEAD', range: string): Call {
    return { method, url: 'http://socket/', headers: { range }, purpose: 'blob', catchStatus: false }
  }

  #urlOf(blob: string): string {
    const { backend } = this.#options
    if (backend.type === 'http-proxy') return `${backend.addr}${backend.path.replace(/\/$/, '')}/${blob}`
    return `${backend.scheme}://${backend.host}/v2/${backend.repo}/blobs/sha256:${blob}`
  }
}

function dragonflyHeaders({ prefetch }: Attempt): Record<string, string> {
  return {
    'x-dragonfly-prefetch': 'true',
    'x-dragonfly-priority': prefetch ? '3' : '6',
    'x-dragonfly-use-p2p': 'true',
  }
}

function isSuccess(status: number): boolean {
  return status >= 200 && status < 400
}

function isRedirect(status: number): boolean {
  return status >= 300 && status < 400
}

/** The answer, or its body as an error where the status says that it is none. */
async function caught(answer: Answer): Promise<Answer> {
  if (isSuccess(answer.status)) return answer
  const pieces: Buffer[] = []
  for await (const piece of answer.body) pieces.push(piece)
  throw new NydusError(`${answer.status}: ${Buffer.concat(pieces).toString('utf8')}`, { status: answer.status })
}
