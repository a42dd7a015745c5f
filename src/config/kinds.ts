import net from 'node:net'
import type { TSchema } from '@sinclair/typebox'
import { isRepositoryName, normaliseRegistry, tryParseDigest } from '../core/index.ts'
import { isSocketPath, parseListenAddress } from './address.ts'
import { MAX_DURATION_MS, type NameKind, type ValueKind } from './schema-parts.ts'
import { formatDuration, parseDuration, parseSize } from './units.ts'

interface Kind {
  /** What it is called in the documentation. */
  readonly title: string
  /** What it wants, to complete the sentence "x is not ...". */
  readonly expected: string
  /** False: it is not what is expected. A string: that is what is wrong with it. */
  readonly judge: (value: string, schema: TSchema) => boolean | string
  /** A value that may hold a credential, or be one put in the wrong place, is not shown. */
  readonly hidden?: true
}

const KINDS: Readonly<Record<ValueKind, Kind>> = {
  address: {
    title: 'address',
    expected: 'an address such as "127.0.0.1:65001", "[::1]:65001" or "unix:/run/shoal/mirror.sock"',
    judge: value => parseListenAddress(value) !== undefined,
  },
  digest: {
    title: 'digest',
    expected: 'a digest: sha256:<64 hex> or sha512:<128 hex>',
    judge: value => tryParseDigest(value) !== undefined,
  },
  duration: {
    title: 'duration',
    expected: 'a duration such as "5s", "300ms" or "1m30s"',
    judge: judgeDuration,
  },
  'header-value': {
    title: 'string',
    expected: 'the value of a header: visible characters, spaces and tabs',
    // RFC 9110, section 5.5, without the obsolete bytes beyond ASCII.
    judge: value => /^[\t\x20-\x7e]*$/.test(value),
    hidden: true,
  },
  'host-pattern': {
    title: 'host pattern',
    expected: 'a host such as "registry.example", "*.example", "registry.example:8443" or "*"',
    judge: value => value === '*' || isHost(value.replace(/^\*\./, '')),
  },
  network: {
    title: 'network',
    expected: 'a network such as "10.0.0.0/8" or "fd00::/8", or an address',
    judge: isNetwork,
  },
  'origin-url': {
    title: 'URL',
    expected: 'a URL such as "https://files.example/blobs", or "unix:/path/of.sock"',
    judge: value => (value.startsWith('unix:') ? isSocketPath(value.slice('unix:'.length)) : judgeUrl(value)),
    hidden: true,
  },
  path: { title: 'path', expected: 'a path', judge: hasNoNul },
  pem: { title: 'path', expected: 'a path', judge: hasNoNul },
  regex: { title: 'regular expression', expected: 'a regular expression', judge: judgeRegex },
  'registry-name': {
    title: 'name',
    expected: 'the name of a registry',
    judge: isHost,
  },
  repository: { title: 'repository', expected: 'the name of a repository', judge: isRepositoryName },
  'secret-path': { title: 'path', expected: 'a path', judge: hasNoNul, hidden: true },
  size: {
    title: 'size',
    expected: 'a size such as "4MiB", "50GiB" or "0"',
    judge: value => parseSize(value) !== undefined,
  },
  socket: {
    title: 'path',
    expected: 'the path of a socket: absolute, at most 107 bytes',
    judge: isSocketPath,
  },
  url: {
    title: 'URL',
    expected: 'a URL such as "https://registry.example" or "http://10.0.0.5:5000"',
    judge: judgeUrl,
    hidden: true,
  },
  'url-path': {
    title: 'path of a URL',
    expected: 'a path such as "/models", without a final slash and not below "/v2"',
    judge: isPrefix,
  },
}

/** Headers that carry credentials, and those that frame messages or that Shoal itself depends on. Lower case. */
const SECRET_HEADERS: ReadonlySet<string> = new Set(['authorization', 'cookie', 'proxy-authorization'])
const OWN_HEADERS: ReadonlySet<string> = new Set([
  'accept-encoding',
  'connection',
  'content-length',
  'expect',
  'keep-alive',
  'range',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

export function titleOf(kind: ValueKind | undefined): string {
  return kind === undefined ? 'string' : KINDS[kind].title
}

/** To complete the sentence "x is not ...". */
export function expectedOf(kind: ValueKind | undefined): string {
  return kind === undefined ? 'a string' : KINDS[kind].expected
}

/** Whether strings of this kind stay out of messages. */
export function isHidden(kind: ValueKind | undefined): boolean {
  return kind !== undefined && KINDS[kind].hidden === true
}

/** What a string must be beyond its pattern; see Kind.judge. An empty one is right where that is the default. */
export function judge(kind: ValueKind | undefined, value: string, schema: TSchema): boolean | string {
  if (kind === undefined) return hasNoNul(value)
  return (value === '' && schema.default === '') || KINDS[kind].judge(value, schema)
}

/** What is wrong with a name in a table with free names. Undefined: nothing. */
export function judgeName(kind: NameKind, name: string): string | undefined {
  if (kind === 'host') return isHost(name) ? undefined : 'is not a host such as "mirror.example" or "localhost:65001"'
  // RFC 9110, section 5.6.2.
  if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/i.test(name)) return 'is not the name of a header'
  if (SECRET_HEADERS.has(name.toLowerCase()))
    return 'must not be given here: credentials come from files, not from the configuration'
  return OWN_HEADERS.has(name.toLowerCase()) ? 'must not be given here: Shoal sets it itself' : undefined
}

/** Host or host:port. */
export function isHost(text: string): boolean {
  return normaliseRegistry(text) !== undefined
}

function hasNoNul(value: string): true | string {
  return value.includes('\0') ? 'must not contain NUL' : true
}

function judgeDuration(value: string, schema: TSchema): boolean | string {
  const ms = parseDuration(value)
  if (ms === undefined) return false
  if (ms > MAX_DURATION_MS) return `${JSON.stringify(value)} is longer than ${formatDuration(24 * 86_400_000)}`
  return ms === 0 && schema['x-positive'] === true ? 'must be longer than 0' : true
}

function judgeUrl(value: string): boolean | string {
  if (!/^https?:\/\//i.test(value) || !URL.canParse(value)) return false
  const url = new URL(value)
  if (url.username !== '' || url.password !== '') return 'must not hold credentials; use username and password_file'
  return url.search === '' && url.hash === '' ? true : 'must not have a query or a fragment'
}

function judgeRegex(value: string): true | string {
  try {
    new RegExp(value)
    return true
  } catch (error: unknown) {
    const why = error instanceof Error ? error.message.replace(/^.*: /s, '') : 'unknown error'
    return `${JSON.stringify(value)} is not a regular expression: ${why}`
  }
}

/** Paths that URL parsers would change are not accepted: they would never match. */
function isPrefix(value: string): boolean {
  if (!/^(?:\/[\w.~!$&'()*+,;=:@-]+)+$/.test(value)) return false
  const [first, ...rest] = value.slice(1).split('/')
  return first !== 'v2' && ![first, ...rest].some(part => part === '.' || part === '..')
}

function isNetwork(value: string): boolean {
  const [, address = '', bits] = /^([^/%]+)(?:\/([0-9]{1,3}))?$/.exec(value) ?? []
  const most = { 0: -1, 4: 32, 6: 128 }[net.isIP(address)] ?? -1
  return most > 0 && Number(bits ?? 0) <= most
}
