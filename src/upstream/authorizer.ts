import { LRUCache } from 'lru-cache'
import { errorCode, ShoalError, type Clock } from '../core/index.ts'
import { parseChallenges, type Challenge } from './challenge.ts'
import { basicAuthorization, type Credential } from './keychain.ts'
import { trustedRealm } from './realm.ts'
import type { TokenClient, TokenRequest } from './tokens.ts'

const MAX_REPOSITORIES = 4096
/** How long a repository that refused everything of ours is asked with the caller's credential first. */
const REFUSED_MS = 5 * 60_000
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

type Scheme = { readonly kind: 'basic' } | { readonly kind: 'bearer'; readonly request: TokenRequest }

/** Answers a registry's challenges with the node's own credential, or with none; remembers per repository what was asked for. */
export class Authorizer {
  readonly #tokens: TokenClient
  readonly #base: URL
  readonly #credential: Credential | undefined
  readonly #schemes = new LRUCache<string, Scheme>({ max: MAX_REPOSITORIES })
  readonly #refused: LRUCache<string, true>

  constructor(
    deps: { readonly clock: Clock; readonly tokens: TokenClient },
    options: { readonly base: URL; readonly credential: Credential | undefined },
  ) {
    this.#tokens = deps.tokens
    this.#base = options.base
    this.#credential = options.credential
    this.#refused = new LRUCache({
      max: MAX_REPOSITORIES,
      ttl: REFUSED_MS,
      ttlResolution: 0,
      perf: { now: () => deps.clock.now() },
    })
  }

  /** What the last challenge for this repository asked for; nothing when there was none. */
  async initial(repository: string, options: { signal?: AbortSignal | undefined }): Promise<Grant> {
    const scheme = this.#schemes.get(repository)
    if (scheme === undefined) return NOTHING
    try {
      return await this.#grant(scheme, options)
    } catch (error: unknown) {
      if (errorCode(error) !== 'ERR_UPSTREAM_AUTH') throw error
      // Only the registry's own challenge tells the caller what to do about it, so that is asked for.
      this.#schemes.delete(repository)
      return NOTHING
    }
  }

  /**
   * After a 401: what to send instead of `sent`. Undefined: there is nothing better, the refusal stands. Throws ERR_UPSTREAM_AUTH when the
   * challenge names a realm that no credential may go to, or the realm refuses.
   */
  async answer(
    repository: string,
    wwwAuthenticate: readonly string[],
    sent: Grant,
    options: { signal?: AbortSignal | undefined },
  ): Promise<Grant | undefined> {
    if (sent.header !== undefined && !sent.reused) return undefined
    const scheme = this.#choose(repository, parseChallenges(wwwAuthenticate))
    if (scheme === undefined) return undefined
    if (scheme.kind === 'bearer' && sent.header !== undefined) {
      this.#tokens.drop(scheme.request, sent.header.slice('Bearer '.length))
    }
    const grant = await this.#grant(scheme, options)
    this.#schemes.set(repository, scheme)
    if (grant.header === sent.header) return undefined
    // A second chance is given once, also when somebody else's new token has been kept meanwhile.
    return { ...grant, reused: grant.reused && sent.header === undefined }
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

  async #grant(scheme: Scheme, options: { signal?: AbortSignal | undefined }): Promise<Grant> {
    const visibility = this.#credential === undefined ? 'public' : 'shared'
    if (scheme.kind === 'bearer') {
      const token = await this.#tokens.get(scheme.request, options)
      return { header: `Bearer ${token.value}`, visibility, reused: token.cached }
    }
    if (this.#credential === undefined) return NOTHING
    return { header: basicAuthorization(this.#credential), visibility, reused: false }
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
        request: {
          realm,
          service,
          scope: usable ? scope : `repository:${repository}:pull`,
          credential: this.#credential,
        },
      }
    }
    if (basic) return { kind: 'basic' }
    if (bearer === undefined) return undefined
    throw new ShoalError('ERR_UPSTREAM_AUTH', `${this.#base.host} names a token realm that is not its own`, {
      details: { host: this.#base.host, status: 401 },
    })
  }
}
