import { isIPv6 } from 'node:net'
import { tryParseDigest, type Digest } from './digest.ts'
import { ShoalError } from './errors.ts'

/** Grammar of OCI distribution-spec 1.1, "Pulling manifests"; the length limit is what registries enforce for host + name. */
const NAME = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/
const NAME_MAX = 255
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/
/** Host or host:port, as image names carry it. Bracketed IPv6 included. */
const LABEL = '[a-z0-9](?:[a-z0-9-]*[a-z0-9])?'
const REGISTRY = new RegExp(`^(?:${LABEL}(?:\\.${LABEL})*|\\[(?<ipv6>[0-9a-f:.]+)\\])(?::(?<port>[0-9]{1,5}))?$`)

export function isRepositoryName(text: string): boolean {
  return text.length <= NAME_MAX && NAME.test(text)
}

/** Throws ERR_NAME_INVALID. */
export function parseRepositoryName(text: string): string {
  if (isRepositoryName(text)) return text
  throw new ShoalError('ERR_NAME_INVALID', `"${text.slice(0, NAME_MAX)}" is not a repository name`)
}

export type ManifestReference = { readonly tag: string } | { readonly digest: Digest }

/** A tag or a digest. Throws ERR_REFERENCE_INVALID. */
export function parseReference(text: string): ManifestReference {
  const digest = tryParseDigest(text)
  if (digest !== undefined) return { digest }
  if (TAG.test(text)) return { tag: text }
  throw new ShoalError('ERR_REFERENCE_INVALID', `"${text.slice(0, 160)}" is neither a tag nor a digest`)
}

export function formatReference(reference: ManifestReference): string {
  return 'tag' in reference ? reference.tag : reference.digest
}

/** Docker Hub goes by several names; images and configuration use the first (distribution/reference normalises the same way). */
const ALIASES: Readonly<Record<string, string>> = {
  'index.docker.io': 'docker.io',
  'registry-1.docker.io': 'docker.io',
  'registry.hub.docker.com': 'docker.io',
}

/** The name under which a registry is kept in the table: lower case, Docker Hub's aliases folded. Undefined when it is no host name. */
export function normaliseRegistry(text: string): string | undefined {
  const lower = text.toLowerCase()
  const groups = lower.length > NAME_MAX ? undefined : REGISTRY.exec(lower)?.groups
  if (groups === undefined || Number(groups['port'] ?? 0) > 65_535) return undefined
  if (groups['ipv6'] !== undefined && !isIPv6(groups['ipv6'])) return undefined
  return ALIASES[lower] ?? lower
}
