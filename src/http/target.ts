import { ShoalError, digestHexLength, tryParseDigest } from '../core/index.ts'
import { PINGS, type PingAnswer } from './pings.ts'

/** What a request's path asks for. Names and references are as the client wrote them: not validated yet. */
export type Target =
  | { readonly kind: 'base'; readonly answer: PingAnswer }
  | {
      readonly kind: 'blob'
      readonly repository: string
      readonly digest: string
      /** Where the path itself tells: it lies below a configured prefix. */
      readonly registry?: string
    }
  | { readonly kind: 'manifest'; readonly repository: string; readonly reference: string }
  | { readonly kind: 'tags'; readonly repository: string }
  | { readonly kind: 'referrers'; readonly repository: string; readonly digest: string }
  | { readonly kind: 'upload' }
  | { readonly kind: 'unknown' }

export interface ParsedUrl {
  readonly target: Target
  /** The `ns` parameter: which registry the client means (containerd; OCI distribution-spec 1.1, "Registry proxying"). */
  readonly namespace: string | undefined
  /** The query without `ns` and without `?`. */
  readonly query: string
}

/** Blobs by their hex alone, as nydusd's http-proxy backend asks: `<prefix>/<hex>` or `<prefix>/<algorithm>:<hex>`. */
export interface BlobPrefix {
  /** Begins with a slash and does not end with one. */
  readonly prefix: string
  /** Name of a registry or of another origin. */
  readonly origin: string
  readonly repository: string
}

/** The longest first, as parseUrl() wants them. */
export function sortPrefixes(prefixes: readonly BlobPrefix[]): BlobPrefix[] {
  return [...prefixes].sort((a, b) => b.prefix.length - a.prefix.length)
}

/** Reads an origin-form request target. `prefixes`: the longest first. Throws ERR_NAME_INVALID when its percent-encoding is broken. */
export function parseUrl(url: string, prefixes: readonly BlobPrefix[] = []): ParsedUrl {
  const mark = url.indexOf('?')
  const target = parsePath(decodePath(mark === -1 ? url : url.slice(0, mark)), prefixes)
  if (mark === -1) return { target, namespace: undefined, query: '' }
  const parameters = new URLSearchParams(url.slice(mark + 1))
  const namespace = parameters.get('ns') ?? undefined
  parameters.delete('ns')
  return { target, namespace: namespace === '' ? undefined : namespace, query: parameters.toString() }
}

function decodePath(path: string): string {
  if (!path.includes('%')) return path
  try {
    return decodeURIComponent(path)
  } catch (error: unknown) {
    throw new ShoalError('ERR_NAME_INVALID', 'the path is not percent-encoded correctly', { cause: error })
  }
}

function parsePath(path: string, prefixes: readonly BlobPrefix[]): Target {
  const answer = PINGS.get(path)
  if (answer !== undefined) return { kind: 'base', answer }
  if (!path.startsWith('/v2/')) return parsePrefixed(path, prefixes)
  const rest = path.slice('/v2/'.length)
  const last = rest.lastIndexOf('/')
  const middle = rest.lastIndexOf('/', last - 1)
  if (rest.includes('/blobs/uploads')) return { kind: 'upload' }
  if (last <= 0 || middle <= 0) return { kind: 'unknown' }
  const repository = rest.slice(0, middle)
  const tail = rest.slice(last + 1)
  switch (rest.slice(middle + 1, last)) {
    case 'blobs':
      return { kind: 'blob', repository, digest: tail }
    case 'manifests':
      return { kind: 'manifest', repository, reference: tail }
    case 'referrers':
      return { kind: 'referrers', repository, digest: tail }
    case 'tags':
      return tail === 'list' ? { kind: 'tags', repository } : { kind: 'unknown' }
    default:
      return { kind: 'unknown' }
  }
}

/** The longest prefix that fits has the word: what is no blob below it is nothing below a shorter one either. */
function parsePrefixed(path: string, prefixes: readonly BlobPrefix[]): Target {
  const found = prefixes.find(({ prefix }) => path.startsWith(prefix) && path[prefix.length] === '/')
  const digest = found === undefined ? undefined : digestOf(path.slice(found.prefix.length + 1))
  if (found === undefined || digest === undefined) return { kind: 'unknown' }
  return { kind: 'blob', repository: found.repository, digest, registry: found.origin }
}

/** From a digest, or from its hex, whose length tells the algorithm. */
function digestOf(name: string): string | undefined {
  if (name.includes(':')) return tryParseDigest(name)
  return tryParseDigest(`${name.length === digestHexLength('sha512') ? 'sha512' : 'sha256'}:${name}`)
}
