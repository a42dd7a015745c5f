import { LRUCache } from 'lru-cache'
import { errorCode, ShoalError, SingleFlight, type Clock } from '../../core/index.ts'
import { statusError } from '../net/failures.ts'
import { basicAuthorization, credentialId, isHeaderWord, type Credential } from './credential.ts'
import { parseJsonObject } from './json.ts'
import type { TokenOutcome, UpstreamMetrics } from '../metrics.ts'
import { discard, drain, headerOf, readBody, type Transport, type TransportRequest } from '../net/transport.ts'
import { upTo } from '../up-to.ts'

const MAX_RESPONSE_BYTES = 64 * 1024
/** Leaves room for a request line and other headers in what servers accept; real tokens have 1 to 5 KB. */
const MAX_TOKEN_LENGTH = 16 * 1024
const MAX_TOKENS = 1024
/** What the distribution token specification says of an answer without `expires_in`. */
const DEFAULT_EXPIRES_SECONDS = 60
const MAX_EXPIRES_SECONDS = 3600
/** A token is not used in the last tenth of its life, or the last 30 s: it must outlive the way to the registry, and clocks differ. */
const MARGIN = 0.1
const MAX_MARGIN_MS = 30_000
/** How long a login that was refused is not tried again: services lock accounts after a few wrong passwords. */
export const REFUSED_LOGIN_MS = 60_000
/** What a service answers to a login that it does not take. */
const REFUSALS: ReadonlySet<number> = new Set([401, 403])
/** And to a refresh token: that it is none of its own (RFC 6749, 5.2), or that it knows of no such thing. */
const REFRESH_REFUSALS: ReadonlySet<number> = new Set([400, 401, 403, 404, 405])
/** How the services of other people's registries know us. */
const CLIENT_ID = 'shoal'

/** What a token can be asked for with: a registry token is one already. */
export type TokenCredential = Exclude<Credential, { readonly kind: 'bearer' }>

export interface TokenRequest {
  /** Already found to be trusted. */
  readonly realm: URL
  readonly service: string | undefined
  /** Space-separated, as a challenge carries them. */
  readonly scope: string
  /** Absent: an anonymous token. */
  readonly credential?: TokenCredential | undefined
}

export interface Token {
  readonly value: string
  /** It was there before this call, so that a refusal may only mean that it has been revoked. */
  readonly cached: boolean
}

interface CachedToken {
  readonly value: string
  readonly expiresAt: number
}

/**
 * Registry tokens (distribution token specification), kept until they expire, and refusals, kept for a minute. Many callers that need the
 * same one cause one request. Nothing is retried here: whoever needs a token has attempts of its own.
 */
export class TokenClient {
  readonly #clock: Clock
  readonly #metrics: UpstreamMetrics
  readonly #transport: Transport
  readonly #tokens = new LRUCache<string, CachedToken>(upTo(MAX_TOKENS))
  /** The status with which a realm refused lately. */
  readonly #refused: LRUCache<string, number>
  readonly #flights = new SingleFlight<CachedToken>()

  constructor(deps: { readonly clock: Clock; readonly metrics: UpstreamMetrics; readonly transport: Transport }) {
    this.#clock = deps.clock
    this.#metrics = deps.metrics
    this.#transport = deps.transport
    this.#refused = new LRUCache({
      ...upTo(MAX_TOKENS),
      ttl: REFUSED_LOGIN_MS,
      ttlResolution: 0,
      perf: { now: () => deps.clock.now() },
    })
  }

  /**
   * Throws ERR_UPSTREAM_AUTH when the realm refuses (`{ status }`), or refused the login less than a minute ago; ERR_UPSTREAM_STATUS for 429
   * and 5xx; and what Transport.send throws.
   */
  async get(request: TokenRequest, options: { signal?: AbortSignal | undefined } = {}): Promise<Token> {
    const key = keyOf(request)
    const cached = this.#fresh(key)
    if (cached !== undefined) return { value: cached.value, cached: true }
    const refused = this.#refused.get(key)
    if (refused !== undefined) throw refusalOf(request, refused)
    const { signal } = options
    const work = (shared: AbortSignal): Promise<CachedToken> => this.#refresh(key, request, shared)
    const token = await this.#flights.run(key, work, signal === undefined ? {} : { signal })
    return { value: token.value, cached: false }
  }

  /** Forgets a token that was refused, unless it has been replaced already. */
  drop(value: string): void {
    for (const [key, token] of this.#tokens) if (token.value === value) this.#tokens.delete(key)
  }

  #fresh(key: string): CachedToken | undefined {
    const token = this.#tokens.get(key)
    return token !== undefined && token.expiresAt > this.#clock.now() ? token : undefined
  }

  async #refresh(key: string, request: TokenRequest, signal: AbortSignal): Promise<CachedToken> {
    const cached = this.#fresh(key)
    if (cached !== undefined) return cached
    try {
      const token = await this.#fetchCounted(request, signal)
      this.#tokens.set(key, token)
      return token
    } catch (error: unknown) {
      if (isRefusedLogin(error)) this.#refused.set(key, Number(error.details['status']))
      throw error
    }
  }

  async #fetchCounted(request: TokenRequest, signal: AbortSignal): Promise<CachedToken> {
    try {
      const token = await this.#fetch(request, signal)
      this.#count('success')
      return token
    } catch (error: unknown) {
      if (signal.aborted) this.#count('aborted')
      else this.#count(errorCode(error) === 'ERR_UPSTREAM_AUTH' ? 'refused' : 'failed')
      throw error
    }
  }

  /** Redirects are not followed: a realm that moves its credentials elsewhere is not trusted. */
  async #fetch(request: TokenRequest, signal: AbortSignal): Promise<CachedToken> {
    const { realm } = request
    const started = this.#clock.now()
    const { status, headers, body } = await this.#transport.send(...httpRequestOf(request, signal))
    if (status === 429 || status >= 500) {
      drain(body)
      throw statusError(realm.host, status, headerOf(headers, 'retry-after'))
    }
    if (status !== 200) {
      discard(body)
      throw refusalOf(request, status)
    }
    const answer = await readBody(body, MAX_RESPONSE_BYTES, { host: realm.host, signal })
    return parseAnswer(answer.toString('utf8'), realm.host, started)
  }

  #count(outcome: TokenOutcome): void {
    this.#metrics.tokenRequests.inc({ outcome })
  }
}

/** Whether a realm refused the login, rather than failed in another way. */
export function isRefusedLogin(error: unknown): error is ShoalError {
  return error instanceof ShoalError && error.code === 'ERR_UPSTREAM_AUTH' && error.details['login'] === 'refused'
}

function refusalOf({ credential, realm }: TokenRequest, status: number): ShoalError {
  const refusals = credential?.kind === 'identity-token' ? REFRESH_REFUSALS : REFUSALS
  const login = refusals.has(status) ? { login: 'refused' } : {}
  return new ShoalError('ERR_UPSTREAM_AUTH', `${realm.host} answered ${status} to a request for a token`, {
    details: { host: realm.host, status, ...login },
  })
}

/**
 * GET with Basic or nothing (distribution token specification), or POST with a refresh token (its OAuth2 form). Past a proxy that may be
 * gone around, as nydusd asks for tokens.
 */
function httpRequestOf(
  { credential, realm, scope, service }: TokenRequest,
  signal: AbortSignal,
): [url: URL, request: TransportRequest] {
  const headers = { accept: 'application/json', 'accept-encoding': 'identity' }
  if (credential?.kind === 'identity-token') {
    const form = new URLSearchParams({ grant_type: 'refresh_token', client_id: CLIENT_ID })
    if (service !== undefined) form.set('service', service)
    form.set('scope', scope)
    form.set('refresh_token', credential.token)
    const type = { 'content-type': 'application/x-www-form-urlencoded' }
    return [realm, { method: 'POST', secret: true, headers: { ...headers, ...type }, body: form.toString(), signal }]
  }
  const url = new URL(realm)
  if (service !== undefined) url.searchParams.set('service', service)
  for (const part of scope.split(' ')) if (part !== '') url.searchParams.append('scope', part)
  if (credential === undefined) return [url, { method: 'GET', secret: true, headers, signal }]
  url.searchParams.set('account', credential.username)
  const authorization = basicAuthorization(credential)
  return [url, { method: 'GET', secret: true, headers: { ...headers, authorization }, signal }]
}

function keyOf({ realm, service, scope, credential }: TokenRequest): string {
  const login = credential === undefined ? null : credentialId(credential)
  return JSON.stringify([realm.href, service ?? null, scope, login])
}

/** What the realm sent is never quoted: it may hold half a token. */
function parseAnswer(text: string, host: string, now: number): CachedToken {
  const answer = parseJsonObject(text)
  const value = answer?.['token'] ?? answer?.['access_token']
  if (answer === undefined || typeof value !== 'string' || value.length > MAX_TOKEN_LENGTH || !isHeaderWord(value)) {
    throw new ShoalError('ERR_UPSTREAM_AUTH', `${host} answered without a usable token`, { details: { host } })
  }
  const seconds = answer['expires_in']
  const usable = typeof seconds === 'number' && seconds > 0 ? seconds : DEFAULT_EXPIRES_SECONDS
  const lifeMs = Math.min(usable, MAX_EXPIRES_SECONDS) * 1000
  return { value, expiresAt: now + lifeMs - Math.min(lifeMs * MARGIN, MAX_MARGIN_MS) }
}
