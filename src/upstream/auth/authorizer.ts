import { LRUCache } from 'lru-cache'
import { describeError, errorCode, ShoalError, type Clock, type Logger } from '../../core/index.ts'
import { parseChallenges, type Challenge } from './challenge.ts'
import { basicAuthorization, credentialId, type Credential, type CredentialSource } from './credential.ts'
import { withoutToken } from './no-token.ts'
import { trustedRealm } from './realm.ts'
import {
  isRefusedLogin,
  REFUSED_LOGIN_MS,
  type Token,
  type TokenClient,
  type TokenCredential,
  type TokenRequest,
} from './tokens.ts'
import { upTo } from '../up-to.ts'

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
  /** The node's own login, where `header` is no token but that itself: not to be shown to anybody else than the registry. */
  readonly login?: Credential
  /** `login` has taken the place of one that was just refused. */
  readonly renewed?: boolean
}

const NOTHING: Grant = { visibility: 'public', reused: false }

/** A registry, and whose login is for it and for its token services. */
export interface TrustedSite {
  /** Where its /v2/ is. */
  readonly base: URL
  /** Undefined: none is ever sent. */
  readonly credentials: CredentialSource | undefined
}

interface BearerScheme {
  readonly kind: 'bearer'
  readonly site: TrustedSite
  /** Of an anonymous token. */
  readonly request: TokenRequest
}

/** `direct`: the login itself. `site`: whose realm, and so whose login. */
type Scheme = BearerScheme | { readonly kind: 'direct'; readonly site: TrustedSite }

interface LoginOptions {
  readonly signal?: AbortSignal | undefined
  /** What was just refused: another is wanted. */
  readonly refused?: Credential | undefined
}

/**
 * Answers a registry's challenges with the node's own credential, or with none; remembers per repository what was asked for. Where a
 * credential is refused and its source has another by now, that is tried at once, and one that is refused is left alone for a minute, in
 * which what anybody may read can still be had.
 */
export class Authorizer {
  readonly #clock: Clock
  readonly #log: Logger
  readonly #tokens: TokenClient
  readonly #own: TrustedSite
  /** In the order in which a realm's owner is looked for. */
  readonly #sites: readonly TrustedSite[]
  readonly #schemes = new LRUCache<string, Scheme>(upTo(MAX_REPOSITORIES))
  /** Repositories that refused everything of ours. */
  readonly #refused: LRUCache<string, true>
  /** Logins that were refused, by repository. */
  readonly #refusedLogins: LRUCache<string, true>
  #warnedAt = -Infinity

  /**
   * `alsoTrusted`: another registry for which this one, a mirror of it, may relay challenges: realms on that one's site get that one's
   * credential, and are asked for nothing but the repository in question.
   */
  constructor(
    deps: { readonly clock: Clock; readonly log: Logger; readonly tokens: TokenClient },
    options: TrustedSite & { readonly alsoTrusted?: TrustedSite | undefined },
  ) {
    const { alsoTrusted, base, credentials } = options
    const memory = (ttl: number): LRUCache<string, true> =>
      new LRUCache({ ...upTo(MAX_REPOSITORIES), ttl, ttlResolution: 0, perf: { now: () => deps.clock.now() } })
    this.#clock = deps.clock
    this.#log = deps.log
    this.#tokens = deps.tokens
    this.#own = { base, credentials }
    this.#sites = alsoTrusted === undefined ? [this.#own] : [this.#own, alsoTrusted]
    this.#refused = memory(REFUSED_MS)
    this.#refusedLogins = memory(REFUSED_LOGIN_MS)
  }

  /** What the last challenge for this repository asked for; nothing when there was none. */
  async initial(repository: string, options: { signal?: AbortSignal | undefined }): Promise<Grant> {
    const scheme = this.#schemes.get(repository)
    if (scheme === undefined) return NOTHING
    try {
      const login = await this.#login(repository, scheme.site, options)
      return await this.#grant(repository, scheme, login, options)
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
    if (sent.login !== undefined) this.#refuseLogin(repository, sent.login, `${this.#own.base.host} answered 401`)
    else if (sent.header !== undefined && !sent.reused) return undefined
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
    { signal }: { signal?: AbortSignal | undefined },
  ): Promise<Grant | undefined> {
    // A second login is tried, and no third.
    const isLast = sent.renewed === true
    const own = isLast ? undefined : await this.#login(repository, this.#own, { signal, refused: sent.login })
    const scheme = this.#choose(repository, challenges, own)
    if (scheme === undefined) return undefined
    if (sent.header !== undefined && sent.login === undefined) this.#tokens.drop(sent.header.slice('Bearer '.length))
    const login = scheme.site === this.#own ? own : await this.#login(repository, scheme.site, { signal })
    const grant = await this.#grant(repository, scheme, login, { signal })
    this.#schemes.set(repository, scheme)
    if (grant.header === sent.header) return undefined
    if (grant.login !== undefined) return { ...grant, renewed: sent.login !== undefined }
    // A second chance is given once, also when somebody else's new token has been kept meanwhile.
    return { ...grant, reused: grant.reused && sent.header === undefined }
  }

  async #grant(
    repository: string,
    scheme: Scheme,
    login: Credential | undefined,
    options: { signal?: AbortSignal | undefined },
  ): Promise<Grant> {
    // A registry token goes to its own registry only: a mirror of that one would get to see all that it opens.
    if (login?.kind === 'bearer' && scheme.site === this.#own) return showLogin(login)
    if (scheme.kind === 'direct') return login?.kind === 'password' ? showLogin(login) : NOTHING
    if (login === undefined || login.kind === 'bearer') return this.#anonymous(scheme, options)
    return this.#bearer(repository, scheme, login, options)
  }

  /** A token for the node's login, or for the one that has taken its place; an anonymous one where the realm takes neither. */
  async #bearer(
    repository: string,
    scheme: BearerScheme,
    login: TokenCredential,
    { signal, refused }: LoginOptions,
  ): Promise<Grant> {
    const { request, site } = scheme
    try {
      return tokenGrant(await this.#token(scheme, { ...request, credential: login }, { signal }), 'shared')
    } catch (error: unknown) {
      if (!isRefusedLogin(error)) throw error
      this.#refuseLogin(repository, login, describeError(error))
    }
    if (refused !== undefined) return this.#anonymous(scheme, { signal })
    const other = await this.#login(repository, site, { signal, refused: login })
    if (other === undefined || other.kind === 'bearer') return this.#grant(repository, scheme, other, { signal })
    return this.#bearer(repository, scheme, other, { signal, refused: login })
  }

  async #anonymous(scheme: BearerScheme, options: { signal?: AbortSignal | undefined }): Promise<Grant> {
    return tokenGrant(await this.#token(scheme, scheme.request, options), 'public')
  }

  async #token(
    { site }: BearerScheme,
    request: TokenRequest,
    options: { signal?: AbortSignal | undefined },
  ): Promise<Token> {
    try {
      return await this.#tokens.get(request, options)
    } catch (error: unknown) {
      options.signal?.throwIfAborted()
      throw site === this.#own ? error : withoutToken(error, this.#own.base.host)
    }
  }

  /** The node's login for a site. Undefined: there is none, or it was refused less than a minute ago. */
  async #login(repository: string, site: TrustedSite, options: LoginOptions): Promise<Credential | undefined> {
    const login = await site.credentials?.get(repository, options)
    return login === undefined || this.#refusedLogins.has(loginKey(repository, login)) ? undefined : login
  }

  #refuseLogin(repository: string, login: Credential, cause: string): void {
    this.#refusedLogins.set(loginKey(repository, login), true)
    this.#warn('credential refused', cause)
  }

  /** Bearer before Basic: a token is worth less to whoever gets hold of it. `login`: that for the registry itself. */
  #choose(repository: string, challenges: readonly Challenge[], login: Credential | undefined): Scheme | undefined {
    const bearer = challenges.find(
      challenge => challenge.scheme === 'bearer' && challenge.params['realm'] !== undefined,
    )
    if (bearer !== undefined) {
      const { realm = '', scope, service } = bearer.params
      for (const site of this.#sites) {
        const trusted = trustedRealm(realm, site.base)
        if (trusted === undefined) continue
        const request = { realm: trusted, service, scope: this.#scopeOf(repository, scope, site) }
        return { kind: 'bearer', site, request }
      }
    }
    const takesBasic = challenges.some(({ scheme }) => scheme === 'basic')
    if (login?.kind === 'bearer' || (login?.kind === 'password' && takesBasic))
      return { kind: 'direct', site: this.#own }
    if (bearer === undefined) return undefined
    const { host } = this.#own.base
    throw new ShoalError('ERR_UPSTREAM_AUTH', `${host} names a token realm that is not its own`, {
      details: { host, status: 401 },
    })
  }

  /** What the challenge asks for, unless it is another registry's word that a mirror claims to pass on. */
  #scopeOf(repository: string, scope: string | undefined, site: TrustedSite): string {
    const usable = scope !== undefined && scope !== '' && scope.length <= MAX_SCOPE_LENGTH
    return usable && site === this.#own ? scope : `repository:${repository}:pull`
  }

  /** One line a minute at most, whatever is wrong: every request of every client comes by here. */
  #warn(event: string, cause: string): void {
    const now = this.#clock.now()
    if (now - this.#warnedAt < WARN_MS) return
    this.#warnedAt = now
    this.#log.warn({ host: this.#own.base.host, cause }, event)
  }
}

function loginKey(repository: string, login: Credential): string {
  return `${repository} ${credentialId(login)}`
}

/** The login itself, to the registry that it is for. */
function showLogin(login: Exclude<Credential, { readonly kind: 'identity-token' }>): Grant {
  const header = login.kind === 'bearer' ? `Bearer ${login.token}` : basicAuthorization(login)
  return { header, visibility: 'shared', reused: false, login }
}

function tokenGrant(token: Token, visibility: Grant['visibility']): Grant {
  return { header: `Bearer ${token.value}`, visibility, reused: token.cached }
}
