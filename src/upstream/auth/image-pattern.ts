/** A pattern of images as kubelet has it in matchImages and in the keys of a plugin's answer. */
export interface ImagePattern {
  /** `image`: registry and repository, as normalised names. */
  matches(image: string): boolean
}

interface Place {
  readonly labels: readonly string[]
  readonly port: string
  /** With its leading slash; '' when there is none. */
  readonly path: string
}

/**
 * As kubelet reads one (k8s.io/kubernetes/pkg/credentialprovider, URLsMatch): the host label by label, with Go's `path.Match` in each; as many
 * labels; the same port, or none in both; and a path that begins with the pattern's, letter by letter. Undefined: not a pattern.
 */
export function parseImagePattern(text: string): ImagePattern | undefined {
  const pattern = placeOf(text)
  if (pattern === undefined) return undefined
  const labels = pattern.labels.map(globToRegExp).filter(label => label !== undefined)
  if (labels.length !== pattern.labels.length) return undefined
  const matches = (image: string): boolean => {
    const place = placeOf(image)
    return (
      place?.port === pattern.port &&
      place.labels.length === labels.length &&
      place.path.startsWith(pattern.path) &&
      labels.every((label, nth) => label.test(place.labels[nth] ?? ''))
    )
  }
  return { matches }
}

/** Host, port and path of something without a scheme. Undefined: there is no host. */
function placeOf(text: string): Place | undefined {
  const slash = text.indexOf('/')
  const authority = slash < 0 ? text : text.slice(0, slash)
  const groups = /^(?<host>\[[0-9A-Fa-f:.]+\]|[^:\s@]+)(?::(?<port>\d*))?$/.exec(authority)?.groups
  if (groups === undefined) return undefined
  const { host = '', port = '' } = groups
  return { labels: host.replace(/^\[(.*:.*)\]$/, '$1').split('.'), port, path: slash < 0 ? '' : text.slice(slash) }
}

/** One unit of a glob: a star, a class, an escaped character, or any other. */
const GLOB_PART = /\*+|\[\^?(?:[^\]\\-]|\\.)(?:[^\]\\]|\\.)*\]|\\.|[^[\\]/y

/** Go's path.Match for a text without slashes: `*`, `?`, `[a-z]`, `[^a-z]`; a backslash makes the next character stand for itself. Undefined: malformed. */
function globToRegExp(glob: string): RegExp | undefined {
  let source = ''
  GLOB_PART.lastIndex = 0
  while (GLOB_PART.lastIndex < glob.length) {
    const part = GLOB_PART.exec(glob)?.[0]
    if (part === undefined) return undefined
    source += partToRegExp(part)
  }
  try {
    return new RegExp(`^${source}$`)
  } catch {
    // A range from a higher character to a lower one.
    return undefined
  }
}

function partToRegExp(part: string): string {
  if (part.startsWith('*')) return '.*'
  if (part === '?') return '.'
  if (part.startsWith('[')) return part.replace(/\\(.)/g, (_, char: string) => escapeChar(char))
  return escapeChar(part.startsWith('\\') ? part.slice(1) : part)
}

/** Letters and digits have a meaning with a backslash, the others without. */
function escapeChar(char: string): string {
  return /\w/.test(char) ? char : `\\${char}`
}
