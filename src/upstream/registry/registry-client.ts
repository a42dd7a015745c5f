import { createHmac, randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import {
  formatRangeHeader,
  ShoalError,
  type ByteRange,
  type Clock,
  type Logger,
  type SourceOptions,
  type Visibility,
} from '../../core/index.ts'
import type { Grant } from '../auth/authorizer.ts'
import { statusError } from '../net/failures.ts'
import type { UpstreamMetrics } from '../metrics.ts'
import { isRedirect, isRefusalOfUrl, MAX_REDIRECTS, resolveRedirect, type RedirectMemory } from './redirects.ts'
import type { ExtraHeaders, VisibilityPolicy } from '../options.ts'
import { readRefusal, type Refusal } from './refusal.ts'
import { Retries } from './retry.ts'
import type { Rights } from './rights.ts'
import {
  drain,
  headerOf,
  type ResponseBody,
  type ResponseHeaders,
  type Transport,
  type TransportResponse,
} from '../net/transport.ts'
import { upTo } from '../up-to.ts'

/** How long a host that ignored a Range is not asked for one again. */
const RANGELESS_MS = 10 * 60_000
const MAX_RANGELESS_HOSTS = 256

export interface RegistryRequest {
  readonly method: 'GET' | 'HEAD'
  readonly repository: string
  /** Below /v2/<repository>/: `blobs/<digest>`, `manifests/<reference>` ... */
  readonly path: string
  /** Without `?`. */
  readonly query?: string
  readonly accept?: string
  readonly range?: ByteRange
  /** The answer's body is read at a reader's pace, so that it may hold its connection for long. */
  readonly bulk?: boolean
  /** That the caller may read it has been settled: who is asked need not decide it. Default: no. */
  readonly settled?: boolean
}

/** An answer that is neither a refusal of our rights, nor 429, nor a failure of the server. Its body is to be read, drained or discarded. */
export interface RegistryResponse {
  readonly status: number
  readonly headers: ResponseHeaders
  readonly body: ResponseBody
  /** Who answered in the end. */
  readonly host: string
  /** Whether that host was sent a Range; those known to ignore it are not. */
  readonly ranged: boolean
  readonly visibility: Visibility
  /** Undoes the memory of a redirect, when the bytes turn out to be wrong. */
  readonly forget: () => void
}

/** An answer from wherever a chain of redirects ended. */
interface Answer {
  readonly response: TransportResponse
  readonly url: URL
  readonly ranged: boolean
  /** Another host than the registry's own took part. */
  readonly crossed: boolean
}

export interface RegistryClientDeps {
  readonly log: Logger
  readonly clock: Clock
  readonly metrics: UpstreamMetrics
  readonly transport: Transport
  readonly rights: Rights
  readonly redirects: RedirectMemory
}

export interface RegistryClientOptions {
  readonly base: URL
  readonly retries: number
  readonly visibility: VisibilityPolicy
  /** Go to the registry's own host only. */
  readonly headers: ExtraHeaders
  /** The value of `ns` in every request. */
  readonly namespace?: string
}

/** One registry: every request with the right credential, through redirects, to the host that has the bytes. */
export class RegistryClient {
  readonly #deps: RegistryClientDeps
  readonly #base: URL
  readonly #options: RegistryClientOptions
  readonly #rangeless: LRUCache<string, true>
  /** Callers' credentials are told apart by this, never kept. */
  readonly #hmacKey = randomBytes(32)

  constructor(deps: RegistryClientDeps, options: RegistryClientOptions) {
    this.#deps = deps
    this.#base = options.base
    this.#options = options
    this.#rangeless = new LRUCache({
      ...upTo(MAX_RANGELESS_HOSTS),
      ttl: RANGELESS_MS,
      ttlResolution: 0,
      perf: { now: () => deps.clock.now() },
    })
  }

  /** Where /v2/ is, with a trailing slash. */
  get base(): URL {
    return this.#base
  }

  /** Whether a host of this registry, or one that it redirects to, ignored Range lately. */
  get hasRangelessHost(): boolean {
    this.#rangeless.purgeStale()
    return this.#rangeless.size > 0
  }

  retries(): Retries {
    return new Retries(this.#deps, this.#options)
  }

  /** A host answered a ranged request with everything: from now on it gets none, and what is not wanted of its answers is thrown away. */
  ignoresRange(host: string): void {
    if (!this.#rangeless.has(host)) this.#deps.log.warn({ host }, 'origin ignores Range')
    this.#rangeless.set(host, true)
    this.#deps.metrics.rangesIgnored.inc()
  }

  /**
   * One attempt, with whichever right suffices: nobody's or the node's own, then the caller's. Throws ERR_UPSTREAM_AUTH with
   * `{ status, wwwAuthenticate, body? }` when none does, ERR_UPSTREAM_STATUS for 429 and 5xx (except 501) and bad redirects, and what
   * Transport.send throws.
   */
  async send(request: RegistryRequest, options: SourceOptions = {}): Promise<RegistryResponse> {
    const { visibility } = this.#options
    const { rights } = this.#deps
    const { repository } = request
    const authorization = visibility === 'public' || visibility === 'shared' ? undefined : options.authorization
    let refusal: Refusal | undefined
    if (visibility !== 'private' && (authorization === undefined || !rights.isRefused(repository))) {
      const outcome = await this.#sendOwn(request, options)
      if ('body' in outcome) {
        if (outcome.status < 300) rights.allow(repository)
        return outcome
      }
      rights.refuse(repository)
      refusal = outcome.refusal
    }
    // Whom rights are lent has no say in a caller's, and a login, as against a token, is for the registry alone.
    const isMeant = rights.isLent !== true || (request.settled === true && !isLogin(authorization))
    if (isMeant && (authorization !== undefined || visibility === 'private')) {
      const outcome = await this.#sendPrivate(request, authorization, options)
      if ('body' in outcome) return outcome
      refusal = outcome.refusal
    }
    throw refusedError(this.#base.host, refusal)
  }

  /** With nobody's right, or the node's. */
  async #sendOwn(request: RegistryRequest, options: SourceOptions): Promise<RegistryResponse | { refusal: Refusal }> {
    const { rights } = this.#deps
    const { repository } = request
    const key = this.#keyFor(request, undefined)
    const kept = await this.#sendKept(request, key, options)
    if (kept !== undefined) return kept
    let grant: Grant = await rights.initial(repository, options)
    for (;;) {
      const answer = await this.#walk(request, this.#urlOf(request), grant.header, options)
      if (!isRefused(answer)) return this.#accept(answer, key, grant.visibility)
      const refusal = await readRefusal(answer, grant.header, options)
      const { challenges, status } = refusal
      const better = status === 401 ? await rights.answer(repository, challenges, grant, options) : undefined
      if (better === undefined) return { refusal }
      grant = better
    }
  }

  /** With the caller's own header, exactly as it came, or without any. */
  async #sendPrivate(
    request: RegistryRequest,
    authorization: string | undefined,
    options: SourceOptions,
  ): Promise<RegistryResponse | { refusal: Refusal }> {
    const key = this.#keyFor(request, authorization)
    const kept = await this.#sendKept(request, key, options)
    if (kept !== undefined) return kept
    const answer = await this.#walk(request, this.#urlOf(request), authorization, options)
    if (!isRefused(answer)) return this.#accept(answer, key, 'private')
    return { refusal: await readRefusal(answer, authorization, options) }
  }

  /** To the place that a redirect led to lately. Undefined: there is none, or it is of no use any longer. */
  async #sendKept(
    request: RegistryRequest,
    key: string | undefined,
    options: SourceOptions,
  ): Promise<RegistryResponse | undefined> {
    const { redirects } = this.#deps
    const kept = key === undefined ? undefined : redirects.get(key)
    if (key === undefined || kept === undefined) return undefined
    try {
      const answer = await this.#walk(request, kept.url, undefined, options)
      if (!isRefusalOfUrl(answer.response.status)) return this.#accept(answer, key, kept.visibility)
      drain(answer.response.body)
      redirects.drop(key)
      return undefined
    } catch (error: unknown) {
      // A caller that left says nothing of the URL.
      if (options.signal?.aborted !== true) redirects.drop(key)
      throw error
    }
  }

  #accept(
    { crossed, ranged, response, url }: Answer,
    key: string | undefined,
    visibility: Visibility,
  ): RegistryResponse {
    const { redirects } = this.#deps
    const isNew = key !== undefined && redirects.get(key) === undefined
    // What was kept is not kept for longer because it still works: only the registry knows whether it should.
    if (isNew && crossed && response.status < 300) redirects.keep(key, { url, visibility })
    const forget = (): void => {
      if (key !== undefined) redirects.drop(key)
    }
    return { ...response, host: url.host, ranged, visibility, forget }
  }

  /** One request, and on to wherever it leads. The credential goes no further than the host it is for. */
  async #walk(
    request: RegistryRequest,
    start: URL,
    authorization: string | undefined,
    options: SourceOptions,
  ): Promise<Answer> {
    let url = start
    let credential = authorization
    let crossed = start.origin !== this.#base.origin
    for (let hops = 0; ; hops += 1) {
      const { response, ranged } = await this.#sendOnce(request, url, credential, options)
      if (!isRedirect(response.status)) return { response, url, ranged, crossed }
      drain(response.body)
      if (hops === MAX_REDIRECTS) throw statusError(url.host, response.status)
      const next = resolveRedirect(url, response.status, headerOf(response.headers, 'location'), {
        registry: this.#base,
      })
      if (next.origin !== url.origin) {
        credential = undefined
        crossed = true
      }
      url = next
    }
  }

  async #sendOnce(
    request: RegistryRequest,
    url: URL,
    credential: string | undefined,
    options: SourceOptions,
  ): Promise<{ response: TransportResponse; ranged: boolean }> {
    const { accept, bulk, method, range } = request
    const { signal } = options
    const ranged = range !== undefined && !this.#rangeless.has(url.host)
    const response = await this.#deps.transport.send(url, {
      method,
      bulk: bulk ?? false,
      headers: {
        ...(url.origin === this.#base.origin ? this.#options.headers : {}),
        'accept-encoding': 'identity',
        ...(accept === undefined ? {} : { accept }),
        ...(ranged ? { range: formatRangeHeader(range) } : {}),
        ...(credential === undefined ? {} : { authorization: credential }),
      },
      signal,
    })
    const { status } = response
    if (status === 429 || (status >= 500 && status !== 501)) {
      drain(response.body)
      throw statusError(url.host, status, headerOf(response.headers, 'retry-after'))
    }
    return { response, ranged }
  }

  #urlOf({ path, query, repository }: RegistryRequest): URL {
    const url = new URL(`${repository}/${path}`, this.#base)
    if (query !== undefined) url.search = query
    const { namespace } = this.#options
    if (namespace !== undefined) url.searchParams.set('ns', namespace)
    return url
  }

  /** Under what name the end of a redirect is kept: only for bodies of blobs, since URLs are signed for one method. */
  #keyFor(request: RegistryRequest, authorization: string | undefined): string | undefined {
    if (request.method !== 'GET' || request.range === undefined) return undefined
    const right =
      authorization === undefined ? '' : createHmac('sha256', this.#hmacKey).update(authorization).digest('hex')
    return `${request.repository} ${request.path} ${right}`
  }
}

/** Whether a header opens more than a token for one repository would. */
function isLogin(authorization: string | undefined): boolean {
  return authorization !== undefined && !/^bearer /i.test(authorization)
}

/** A refusal by a host that the registry redirected to is about the URL, not about anybody's rights. */
function isRefused({ crossed, response }: Answer): boolean {
  return !crossed && (response.status === 401 || response.status === 403)
}

function refusedError(host: string, refusal: Refusal | undefined): ShoalError {
  const { status = 401, challenges = [], body } = refusal ?? {}
  return new ShoalError('ERR_UPSTREAM_AUTH', `${host} refused with ${status}`, {
    details: { host, status, wwwAuthenticate: challenges, ...(body === undefined ? {} : { body }) },
  })
}
