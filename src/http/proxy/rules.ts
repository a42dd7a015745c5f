import { ShoalError } from '../../core/index.ts'
import { parseDestination } from './destination.ts'
import type { Permission } from './egress.ts'

/** What stands in a path as it is (RFC 3986, 3.3), the slash included: servers differ on whether an escaped one parts segments. */
const PATH_CHARACTER = /[\w./~:@!$&'()*+,;=-]/

export type RuleAction = 'cache' | 'direct' | 'redirect' | 'deny'

/** What the operator says of some URLs. The first rule that matches decides. */
export interface ProxyRule {
  /** A regular expression, searched for in `http[s]://host[:port]/path`, without query, fragment and default port. */
  readonly match: string
  readonly action: RuleAction
  /** An http URL goes on as https. */
  readonly useHttps: boolean
  /**
   * For `redirect`. Without a slash: the `host[:port]` to ask instead. With one: what stands in place of the match, as for
   * String.replace ($1, $2 ...); the scheme is kept where it names none.
   */
  readonly redirect?: string
}

export interface CompiledRule extends ProxyRule {
  readonly pattern: RegExp
}

/** Throws ERR_CONFIG_INVALID for an expression that does not compile and for a redirect that leads nowhere. */
export function compileRules(rules: readonly ProxyRule[]): CompiledRule[] {
  return rules.map(rule => {
    if (rule.action === 'redirect' && (rule.redirect ?? '') === '')
      throw new ShoalError('ERR_CONFIG_INVALID', `the proxy rule "${rule.match}" does not say where to redirect to`)
    try {
      return { ...rule, pattern: new RegExp(rule.match) }
    } catch (error: unknown) {
      throw new ShoalError('ERR_CONFIG_INVALID', `the proxy rule "${rule.match}" is no regular expression`, {
        cause: error,
      })
    }
  })
}

export interface Verdict extends Permission {
  /** `none`: no rule matches. */
  readonly action: RuleAction | 'none'
  /** Where the request goes. */
  readonly url: URL
}

/** What rules are matched against. Escapes that need not be there are another way to write the same path, and none around a rule. */
export function matchedText({ host, pathname, protocol }: URL): string {
  return `${protocol}//${host}${pathname.includes('%') ? plainPath(pathname) : pathname}`
}

function plainPath(pathname: string): string {
  const plain = pathname.replace(/%[2-7][0-9a-f]/gi, escape => {
    const character = String.fromCharCode(Number.parseInt(escape.slice(1), 16))
    return PATH_CHARACTER.test(character) ? character : escape
  })
  return new URL(`http://host${plain}`).pathname
}

/**
 * What is to become of a request for `url`, which is in its normal form and not changed. Only `direct` and `redirect` open hosts that no
 * table has: expressions for `cache` are usually about paths, and match at any host. Throws ERR_CONFIG_INVALID when a redirect does not
 * make a URL of this one.
 */
export function decide(rules: readonly CompiledRule[], url: URL): Verdict {
  const text = matchedText(url)
  const rule = rules.find(({ pattern }) => pattern.test(text))
  if (rule === undefined) return { action: 'none', url, trusted: false, allowed: false }
  const { action, redirect = '' } = rule
  const target = action === 'redirect' ? redirected(rule.pattern, redirect, url) : new URL(url)
  const trusted = action === 'redirect' && isNamedBy(redirect, url, target)
  if (rule.useHttps) target.protocol = 'https:'
  return { action, url: target, trusted, allowed: action === 'direct' || action === 'redirect' }
}

function redirected(pattern: RegExp, redirect: string, url: URL): URL {
  const text = redirect.includes('/')
    ? withScheme(matchedText(url).replace(pattern, redirect), url)
    : `${url.protocol}//${redirect}${url.pathname}`
  const target = parseDestination(text)
  if (target === undefined)
    throw new ShoalError('ERR_CONFIG_INVALID', `a redirect of the proxy does not make a URL of one at ${url.host}`)
  if (url.search !== '') target.search = target.search === '' ? url.search : `${target.search}&${url.search.slice(1)}`
  return target
}

/** A redirect vouches for a host that it names in full: nothing of the client's may have a say in where the request goes. */
function isNamedBy(redirect: string, url: URL, target: URL): boolean {
  return !redirect.includes('$') && parseDestination(withScheme(redirect, url))?.host === target.host
}

function withScheme(text: string, { protocol }: URL): string {
  return /^https?:\/\//i.test(text) ? text : `${protocol}//${text}`
}
