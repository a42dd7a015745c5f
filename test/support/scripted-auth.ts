/** An answer that is all in hand. */
export interface PlainAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[]>>
  readonly body: string | Uint8Array
}

export interface ScriptedAuthOptions {
  readonly kind: 'none' | 'basic' | 'token'
  /** Passwords by user name. */
  readonly users?: Readonly<Record<string, string>>
  /** Who may pull what; `user` is undefined for nobody. Default: everyone who is known. */
  readonly mayPull?: (user: string | undefined, repository: string) => boolean
  /** Life of a token; default 300. */
  readonly tokenSeconds?: number
  /** Where tokens are had; default: this server's /token. */
  readonly realm?: string
  /** The whole challenge, instead of the one that would be sent. */
  readonly challenge?: string | readonly string[]
  /** Users by refresh token; without any, POST to /token is not allowed. */
  readonly refreshTokens?: Readonly<Record<string, string>>
  /** Tokens say themselves when they expire, as a JWT does. */
  readonly jwt?: boolean
  /** Laid over the answer of /token. */
  readonly tokenAnswer?: Readonly<Record<string, unknown>>
}

interface IssuedToken {
  readonly user: string | undefined
  readonly scope: string
  readonly expiresAt: number
}

/** The credentials side of the scripted origin. */
export class ScriptedAuth {
  options: ScriptedAuthOptions
  /** The clock by which tokens expire. */
  now: () => number = Date.now
  readonly #tokens = new Map<string, IssuedToken>()
  #issued = 0

  constructor(options: ScriptedAuthOptions) {
    this.options = options
  }

  get issued(): number {
    return this.#issued
  }

  revokeTokens(): void {
    this.#tokens.clear()
  }

  /** A token as /token would give it to `user`. */
  tokenFor(user: string | undefined, repository: string): string {
    return this.#mint(user, `repository:${repository}:pull`)
  }

  /** The answer of /token. */
  issue(url: string, authorization: string | undefined): PlainAnswer {
    const { tokenAnswer, tokenSeconds = 300 } = this.options
    const user = this.#userOf(authorization)
    if (authorization !== undefined && user === undefined) return { status: 401, headers: {}, body: 'who are you?' }
    const scope = new URL(url, 'http://scripted').searchParams.getAll('scope').join(' ')
    const answer = { token: this.#mint(user, scope), expires_in: tokenSeconds, ...tokenAnswer }
    return { status: 200, headers: { 'content-type': 'application/json' }, body: JSON.stringify(answer) }
  }

  /** The answer of POST /token with this form. */
  exchange(body: string): PlainAnswer {
    const { refreshTokens, tokenSeconds = 300 } = this.options
    if (refreshTokens === undefined) return { status: 405, headers: {}, body: 'only GET' }
    const form = new URLSearchParams(body)
    const user = refreshTokens[form.get('refresh_token') ?? '']
    if (form.get('grant_type') !== 'refresh_token' || form.get('client_id') === null || user === undefined) {
      return { status: 400, headers: {}, body: JSON.stringify({ error: 'invalid_grant' }) }
    }
    const answer = { access_token: this.#mint(user, form.get('scope') ?? ''), expires_in: tokenSeconds }
    return { status: 200, headers: { 'content-type': 'application/json' }, body: JSON.stringify(answer) }
  }

  /** Undefined: allowed. */
  check(url: string, repository: string, authorization: string | undefined): PlainAnswer | undefined {
    const { kind, realm = `${url}/token` } = this.options
    if (kind === 'none') return undefined
    if (kind === 'basic') {
      const user = this.#userOf(authorization)
      return user !== undefined && this.#mayPull(user, repository) ? undefined : this.#refuse('Basic realm="scripted"')
    }
    const token = this.#tokens.get(authorization?.replace(/^Bearer /, '') ?? '')
    const valid = token !== undefined && token.expiresAt > this.now() && token.scope === `repository:${repository}:pull`
    if (valid && this.#mayPull(token.user, repository)) return undefined
    return this.#refuse(`Bearer realm="${realm}",service="scripted",scope="repository:${repository}:pull"`)
  }

  #mint(user: string | undefined, scope: string): string {
    this.#issued += 1
    const expiresAt = this.now() + (this.options.tokenSeconds ?? 300) * 1000
    const number = `token-number-${this.#issued}`
    const token = this.options.jwt === true ? jwt({ jti: number, exp: Math.floor(expiresAt / 1000) }) : number
    this.#tokens.set(token, { user, scope, expiresAt })
    return token
  }

  #mayPull(user: string | undefined, repository: string): boolean {
    return this.options.mayPull?.(user, repository) ?? true
  }

  #refuse(challenge: string): PlainAnswer {
    const sent = this.options.challenge ?? challenge
    return {
      status: 401,
      headers: { 'www-authenticate': typeof sent === 'string' ? sent : [...sent], 'content-type': 'application/json' },
      body: JSON.stringify({ errors: [{ code: 'UNAUTHORIZED' }] }),
    }
  }

  #userOf(authorization: string | undefined): string | undefined {
    return Object.entries(this.options.users ?? {}).find(
      ([name, password]) => authorization === basic(name, password),
    )?.[0]
  }
}

/** Signed by nobody: only its issuer and those who want to know its expiry read it. */
function jwt(claims: object): string {
  const parts = [{ alg: 'none' }, claims].map(part => Buffer.from(JSON.stringify(part)).toString('base64url'))
  return `${parts.join('.')}.unsigned`
}

/** The Authorization header of a user. */
export function basic(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}
