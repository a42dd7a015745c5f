import { ShoalError } from '../core/index.ts'

/** What a request's path asks for. Names and references are as the client wrote them: not validated yet. */
export type Target =
  | { readonly kind: 'base' }
  | { readonly kind: 'blob'; readonly repository: string; readonly digest: string }
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

/** Reads an origin-form request target. Throws ERR_NAME_INVALID when its percent-encoding is broken. */
export function parseUrl(url: string): ParsedUrl {
  const mark = url.indexOf('?')
  const target = parsePath(decodePath(mark === -1 ? url : url.slice(0, mark)))
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

function parsePath(path: string): Target {
  if (path === '/v2/' || path === '/v2') return { kind: 'base' }
  if (!path.startsWith('/v2/')) return { kind: 'unknown' }
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
