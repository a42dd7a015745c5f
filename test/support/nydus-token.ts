import type { WireRequest } from './nydus-wire.ts'

/**
 * 2.2: up to 2.2.2, mirrors with auth_through. 2.3: 2.3.2 to 2.3.4, mirrors without it, and an HTTP client that follows redirects. 2.4:
 * from 2.4.3 on, no mirrors, retries of its own and Dragonfly's headers.
 */
export type NydusVersion = '2.2' | '2.3' | '2.4'

export interface NydusUser {
  readonly username: string
  readonly password: string
}

export interface Challenge {
  readonly scheme: 'Basic' | 'Bearer'
  readonly realm: string
  readonly service: string
  readonly scope: string
}

/** The Authorization header of a user. */
export function basicOf({ username, password }: NydusUser): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}

/** How nydusd asks a realm for a token: by POST first, and by GET when that did not work. */
export function tokenRequest(
  { realm, scope, service }: Challenge,
  options: { readonly method: 'GET' | 'POST'; readonly user: NydusUser | undefined; readonly version: NydusVersion },
): WireRequest {
  const { method, user, version } = options
  const fields = new URLSearchParams({ service, scope })
  if (version !== '2.4') {
    fields.set('grant_type', 'password')
    fields.set('username', user?.username ?? '')
    // Sic.
    fields.set(version === '2.2' && method === 'POST' ? 'passward' : 'password', user?.password ?? '')
  }
  fields.set('client_id', 'nydus-registry-client')
  const isSent = user !== undefined && (version === '2.4' || method === 'GET')
  return {
    method,
    url: method === 'GET' ? `${realm}?${fields.toString()}` : realm,
    headers: isSent ? { authorization: basicOf(user) } : {},
    form: method === 'POST' ? fields.toString() : undefined,
  }
}

/** As nydusd does it: the scheme in exactly this case, parameters split at `",`, and no more of a value than comes before a second `=`. */
export function parseChallenge(header: string, version: NydusVersion): Challenge | undefined {
  const [, scheme, rest] = /^(\S+) (.*)$/.exec(header) ?? []
  const fields = new Map<string, string>()
  for (const pair of (rest ?? '').trim().split('",')) {
    const [name, value] = pair.trim().split('=')
    if (name === undefined || value === undefined) return undefined
    fields.set(name.trim(), value.trim().replace(/^"+|"+$/g, ''))
  }
  const { realm = '', service = '', scope = '' } = Object.fromEntries(fields)
  if (scheme === 'Basic') return { scheme, realm, service, scope }
  if (scheme !== 'Bearer' || !fields.has('realm') || !fields.has('service')) return undefined
  return version === '2.4' || fields.has('scope') ? { scheme, realm, service, scope } : undefined
}
