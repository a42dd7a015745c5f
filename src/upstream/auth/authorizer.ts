import { LRUCache } from 'lru-cache'
import { describeError, errorCode, ShoalError, type Clock, type Logger } from '../../core/index.ts'
import { parseChallenges, type Challenge } from './challenge.ts'
import { basicAuthorization, type Credential } from './keychain.ts'
import { trustedRealm } from './realm.ts'
import { REFUSED_LOGIN_MS, refusedLogin, type Token, type TokenClient, type TokenRequest } from './tokens.ts'

const MAX_REPOSITORIES = 4096
/** How long a repository that refused everything of ours is asked with the caller's credential first. */
const REFUSED_MS = 5 * 60_000
/** What is wrong with a credential stays wrong until somebody reads of it. */
const WARN_MS = 60_000
const MAX_SCOPE_LENGTH = 1024

/** What to send along with a request. */
export interface Grant {
  /** Absent: nothing. */
  readonly header?: string
  /** Whose right it is: nobody's, or the node's own. */
  readonly visibility: 'public' | 'shared'
  /** A refusal need not be the last word: what was sent had been kept since an earlier request. */
  readonly reused: boolean
}

const NOTHING: Grant = { visibility: 'public', reused: false }

/** `request`: of an anonymous token. */
type Scheme = { readonly kind: 'basic' } | { readonly kind: 'bearer'; readonly request: TokenRequest }

/**
 * Answers a registry's challenges with the node's own credential, or with none; remembers per repository what was asked for. A credential
 * that is refused is left alone for a minute, in which what anybody may read can still be had.
 */
export class Authorizer {
  readonly #clock: Clock
  readonly #log: Logger
  readonly #tokens: TokenClient
  readonly #base: URL
  readonly #credential: Credential | undefined
  readonly #schemes = new LRUCache<string, Scheme>({ max: MAX_REPOSITORIES })
  /** Repositories that refused everything of ours. */
  readonly #refused: LRUCache<string, true>
  /** Repositories that refused Basic. What token services refused is remembered by the TokenClient. */
  readonly #refusedBasic: LRUCache<string, true>
  #warnedAt = -Infinity

  constructor(
    deps: { readonly clock: Clock; readonly log: Logger; readonly tokens: TokenClient },
    options: { readonly base: URL; readonly credential: Credential | undefined },
  ) {
    const memory = (ttl: number): LRUCache<string, true> =>
      new LRUCache({ max: MAX_REPOSITORIES, ttl, ttlResolution: 0, perf: { now: () => deps.clock.now() } })
    this.#clock = deps.clock
    this.#log = deps.log
    this.#tokens = deps.tokens
    this.#base = options.base
    this.#credential = options.credential
    this.#refused = memory(REFUSED_MS)
    this.#refusedBasic = memory(REFUSED_LOGIN_MS)
  }

  /** What the last challenge for this repository asked for; nothing when there was none. */
  async initial(repository: string, options: { signal?: AbortSignal | undefined }): Promise<Grant> {
    const scheme = this.#schemes.get(repository)
    if (scheme === undefined) return NOTHING
    try {
      return await this.#grant(repository, scheme, options)
    } catch (error: unknown) {
      if (errorCode(error) !== 'ERR_UPSTREAM_AUTH') throw error
      // Only the registry's own challenge tells the caller what to do about it, so that is asked for.
      this.#schemes.delete(repository)
      return NOTHING
    }
  }

  /**
   * After a 401: what to send instead of `sent`. Undefined: there is nothing better, the refusal stands. That a realm is not to be trusted,
   * or refuses, is logged and no error. Throws what Transport.send throws, and ERR_UPSTREAM_STATUS when the realm fails.
   */
  async answer(
    repository: string,
    wwwAuthenticate: readonly string[],
    sent: Grant,
    options: { signal?: AbortSignal | undefined },
  ): Promise<Grant | undefined> {
    if (sent.header?.startsWith('Basic ') === true) {
      this.#refusedBasic.set(repository, true)
      this.#warn('credential refused', `${this.#base.host} answered 401`)
    }
    if (sent.header !== undefined && !sent.reused) return undefined
    try {
      return await this.#better(repository, parseChallenges(wwwAuthenticate), sent, options)
    } catch (error: unknown) {
      if (errorCode(error) !== 'ERR_UPSTREAM_AUTH') throw error
      this.#warn('no token to be had', describeError(error))
      return undefined
    }
  }

  /** Whether this repository lately refused what we have, so that a caller's own credential had better be tried at once. */
  isRefused(repository: string): boolean {
    return this.#refused.has(repository)
  }

  refuse(repository: string): void {
    this.#refused.set(repository, true)
  }

  allow(repository: string): void {
    this.#refused.delete(repository)
  }

  async #better(
    repository: string,
    challenges: readonly Challenge[],
    sent: Grant,
    options: { signal?: AbortSignal | undefined },
  ): Promise<Grant | undefined> {
    const scheme = this.#choose(repository, challenges)
    if (scheme === undefined) return undefined
    if (scheme.kind === 'bearer' && sent.header !== undefined) {
      const token = sent.header.slice('Bearer '.length)
      for (const credential of [this.#credential, undefined])
        this.#tokens.drop({ ...scheme.request, credential }, token)
    }
    const grant = await this.#grant(repository, scheme, options)
    this.#schemes.set(repository, scheme)
    if (grant.header === sent.header) return undefined
    // A second chance is given once, also when somebody else's new token has been kept meanwhile.
    return { ...grant, reused: grant.reused && sent.header === undefined }
  }

  async #grant(repository: string, scheme: Scheme, options: { signal?: AbortSignal | undefined }): Promise<Grant> {
    if (scheme.kind === 'bearer') return this.#bearer(scheme.request, options)
    if (this.#credential === undefined || this.#refusedBasic.has(repository)) return NOTHING
    return { header: basicAuthorization(this.#credential), visibility: 'shared', reused: false }
  }

  /** A token for the node's credential; an anonymous one where there is none, or the realm does not take it. */
  async #bearer(request: TokenRequest, options: { signal?: AbortSignal | undefined }): Promise<Grant> {
    const credential = this.#credential
    if (credential !== undefined) {
      try {
        return bearerGrant(await this.#tokens.get({ ...request, credential }, options), 'shared')
      } catch (error: unknown) {
        if (refusedLogin(error) === undefined) throw error
        this.#warn('credential refused', describeError(error))
      }
    }
    return bearerGrant(await this.#tokens.get(request, options), 'public')
  }

  /** Bearer before Basic: a token is worth less to whoever gets hold of it. */
  #choose(repository: string, challenges: readonly Challenge[]): Scheme | undefined {
    const bearer = challenges.find(
      challenge => challenge.scheme === 'bearer' && challenge.params['realm'] !== undefined,
    )
    const basic = challenges.some(challenge => challenge.scheme === 'basic') && this.#credential !== undefined
    const realm = trustedRealm(bearer?.params['realm'] ?? '', this.#base)
    if (bearer !== undefined && realm !== undefined) {
      const { scope, service } = bearer.params
      const usable = scope !== undefined && scope !== '' && scope.length <= MAX_SCOPE_LENGTH
      return {
        kind: 'bearer',
        request: { realm, service, scope: usable ? scope : `repository:${repository}:pull` },
      }
    }
    if (basic) return { kind: 'basic' }
    if (bearer === undefined) return undefined
    throw new ShoalError('ERR_UPSTREAM_AUTH', `${this.#base.host} names a token realm that is not its own`, {
      details: { host: this.#base.host, status: 401 },
    })
  }

  /** One line a minute at most, whatever is wrong: every request of every client comes by here. */
  #warn(event: string, cause: string): void {
    const now = this.#clock.now()
    if (now - this.#warnedAt < WARN_MS) return
    this.#warnedAt = now
    this.#log.warn({ host: this.#base.host, cause }, event)
  }
}

function bearerGrant(token: Token, visibility: Grant['visibility']): Grant {
  return { header: `Bearer ${token.value}`, visibility, reused: token.cached }
}
