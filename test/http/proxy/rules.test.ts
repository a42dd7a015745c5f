import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { compileRules, decide, type ProxyRule, type RuleAction } from '../../../src/http/proxy/rules.ts'

function rule(match: string, action: RuleAction, rest: { redirect?: string; useHttps?: boolean } = {}): ProxyRule {
  return { match, action, useHttps: false, ...rest }
}

function verdictOf(rules: readonly ProxyRule[], url: string) {
  const { action, url: target, trusted, allowed } = decide(compileRules(rules), new URL(url))
  return { action, url: target.href, trusted, allowed }
}

test('without a rule a request goes where it says, by no special right', () => {
  assert.deepEqual(verdictOf([], 'http://a.test/x?y'), {
    action: 'none',
    url: 'http://a.test/x?y',
    trusted: false,
    allowed: false,
  })
})

test('the first rule that matches decides', () => {
  const rules = [rule('a\\.test', 'deny'), rule('test', 'direct'), rule('.', 'cache')]
  assert.equal(verdictOf(rules, 'http://a.test/').action, 'deny')
  assert.equal(verdictOf(rules, 'http://b.test/').action, 'direct')
  assert.equal(verdictOf(rules, 'http://b.example/').action, 'cache')
})

test('a path written otherwise is the same path', () => {
  const rules = [rule('^http://a\\.test/v2/secret/', 'deny')]
  for (const path of [
    '/v2/secret/x',
    '/v2/s%65cret/x',
    '/v2%2Fsecret/x',
    '/v2/other/..%2fsecret/x',
    '/%76%32/secret/x',
  ])
    assert.equal(verdictOf(rules, `http://a.test${path}`).action, 'deny', path)
  for (const path of ['/v2/secrets/x', '/v2/secret%3Fx/', '/v2/s%2565cret/x', '/v2/s%c3%a9cret/x', '/v2/%zz/x'])
    assert.equal(verdictOf(rules, `http://a.test${path}`).action, 'none', path)
  const other = verdictOf([rule('b', 'redirect', { redirect: 'b.test' })], 'http://a.test/%62%2Fx')
  assert.equal(other.url, 'http://b.test/%62%2Fx')
})

test('only a rule that sends a request somewhere opens hosts outside the tables', () => {
  const allowed = (action: RuleAction) =>
    verdictOf([rule('.', action, { redirect: 'b.test' })], 'http://a.test/').allowed
  assert.deepEqual(
    { cache: allowed('cache'), deny: allowed('deny'), direct: allowed('direct'), redirect: allowed('redirect') },
    { cache: false, deny: false, direct: true, redirect: true },
  )
})

test('useHttps makes https of http and leaves a port of its own alone', () => {
  const rules = [rule('.', 'cache', { useHttps: true })]
  assert.equal(verdictOf(rules, 'http://a.test/x').url, 'https://a.test/x')
  assert.equal(verdictOf(rules, 'http://a.test:443/x').url, 'https://a.test/x')
  assert.equal(verdictOf(rules, 'http://a.test:5000/x').url, 'https://a.test:5000/x')
  assert.equal(verdictOf(rules, 'https://a.test/x').url, 'https://a.test/x')
})

test('a redirect replaces the authority, or the match', () => {
  for (const [match, redirect, from, to, trusted] of [
    ['a\\.test', 'b.test', 'http://a.test:5000/x?y=z', 'http://b.test/x?y=z', true],
    ['a\\.test', 'b.test:81', 'https://a.test/x', 'https://b.test:81/x', true],
    ['a\\.test', '[::1]:81', 'http://a.test/x', 'http://[::1]:81/x', true],
    ['^http://a\\.test', 'https://b.test/mirror', 'http://a.test/x?y', 'https://b.test/mirror/x?y', true],
    ['^http://a\\.test', 'b.test/mirror', 'http://a.test/x', 'http://b.test/mirror/x', true],
    ['^https?://(.+)\\.test/(.*)$', 'https://$1.example/$2', 'http://a.test/x/y', 'https://a.example/x/y', false],
    ['/old/', '/new/', 'http://a.test/old/x', 'http://a.test/new/x', false],
    ['/old$', '/new?k=1', 'http://a.test/old?y=2', 'http://a.test/new?k=1&y=2', false],
    ['evil', 'good.test/', 'http://evil.example/x', 'http://good.test/.example/x', true],
    ['evil', 'http://good.test/x', 'http://other.example/evil', 'http://other.example/http://good.test/x', false],
  ] as const) {
    const verdict = verdictOf([rule(match, 'redirect', { redirect })], from)
    assert.deepEqual(verdict, { action: 'redirect', url: to, trusted, allowed: true }, `${match} -> ${redirect}`)
  }
})

test('a redirect and https combine', () => {
  const rules = [rule('a\\.test', 'redirect', { redirect: 'b.test:5000', useHttps: true })]
  assert.equal(verdictOf(rules, 'http://a.test/x').url, 'https://b.test:5000/x')
})

test('a redirect that makes no URL is a failure, and nothing of the query is told', () => {
  const rules = compileRules([rule('//([^/]*)/(.*)$', 'redirect', { redirect: '//user@$1/$2' })])
  assert.throws(() => decide(rules, new URL('http://a.test/x?secret')), {
    code: 'ERR_CONFIG_INVALID',
    message: /^[^?]*a\.test$/,
  })
})

test('rules that cannot be used are refused', () => {
  for (const bad of [rule('(', 'deny'), rule('.', 'redirect'), rule('.', 'redirect', { redirect: '' })])
    assert.throws(() => compileRules([bad]), { code: 'ERR_CONFIG_INVALID', message: new RegExp(`"\\${bad.match}"`) })
})

const actions = fc.constantFrom<RuleAction>('cache', 'direct', 'redirect', 'deny')
const matches = fc.constantFrom('.', 'a', 'b\\.', '^https', '/v2/', 'blobs/sha256', ':5000', '$^', 'x{3}')
const rules = fc.array(
  fc.record({
    match: matches,
    action: actions,
    useHttps: fc.boolean(),
    redirect: fc.constantFrom('m.test', 'm.test:81'),
  }),
)
const urls = fc
  .webUrl({ withQueryParameters: true, validSchemes: ['http', 'https'] })
  .filter(text => URL.canParse(text))

test('rules after the first match change nothing, and neither does the query', () => {
  fc.assert(
    fc.property(rules, rules, urls, (some, more, text) => {
      const url = new URL(text)
      const before = url.href
      const compiled = compileRules(some)
      const verdict = decide(compiled, url)
      const without = new URL(text)
      without.search = ''
      assert.equal(decide(compiled, without).action, verdict.action)
      if (verdict.action !== 'none') assert.deepEqual(decide(compileRules([...some, ...more]), url), verdict)
      else assert.deepEqual(decide(compileRules([...some, ...more]), url), decide(compileRules(more), url))
      assert.equal(url.href, before)
    }),
  )
})

test('path and query survive every rule that names no path, and only a redirect changes the host', () => {
  fc.assert(
    fc.property(rules, urls, (some, text) => {
      const url = new URL(text)
      const { action, url: target, trusted } = decide(compileRules(some), url)
      assert.equal(target.pathname, url.pathname)
      assert.equal(target.search, url.search)
      assert.equal(trusted, action === 'redirect')
      if (action === 'redirect') assert.equal(target.hostname, 'm.test')
      else assert.equal(target.hostname, url.hostname)
    }),
  )
})
