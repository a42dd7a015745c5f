import { createHash } from 'node:crypto'
import {
  digestAlgorithm,
  formatDigest,
  formatReference,
  MANIFEST_TYPES,
  MAX_MANIFEST_BYTES,
  ShoalError,
  tryParseDigest,
  type Digest,
  type DigestAlgorithm,
  type Manifest,
  type ManifestInfo,
  type ManifestKey,
  type ManifestOptions,
} from '../../core/index.ts'
import { bodyError, statusError } from '../net/failures.ts'
import type { RegistryClient, RegistryRequest, RegistryResponse } from './registry-client.ts'
import { discard, drain, headerOf, readBody } from '../net/transport.ts'

/** HEAD, or the manifest itself from registries whose answer to HEAD lacks the digest, the type or the length. */
export async function statManifest(
  client: RegistryClient,
  key: ManifestKey,
  options: ManifestOptions,
): Promise<ManifestInfo | undefined> {
  const head = await client.retries().run(() => client.send(requestFor('HEAD', key, options), options), options)
  drain(head.body)
  if (head.status === 404) return undefined
  const info = head.status === 200 ? infoFrom(head, key) : undefined
  if (info !== undefined) return info
  const manifest = await getManifest(client, key, options)
  if (manifest === undefined) return undefined
  const { body, ...rest } = manifest
  return { ...rest, size: body.length }
}

/**
 * The manifest, hashed here and held against the digest asked for and the one the registry names. Throws ERR_DIGEST_MISMATCH, and
 * ERR_LIMIT_EXCEEDED beyond MAX_MANIFEST_BYTES.
 */
export async function getManifest(
  client: RegistryClient,
  key: ManifestKey,
  options: ManifestOptions,
): Promise<Manifest | undefined> {
  return client.retries().run(async () => {
    const response = await client.send(requestFor('GET', key, options), options)
    const { headers, host, status } = response
    if (status === 404) {
      drain(response.body)
      return undefined
    }
    if (status !== 200 || isEncoded(response)) {
      discard(response.body)
      throw status === 200 ? bodyError(host, 'encodes the content of a manifest') : statusError(host, status)
    }
    const body = await readBody(response.body, MAX_MANIFEST_BYTES, { host, signal: options.signal })
    const digest = verifyManifest(body, [wantedDigest(key), namedDigest(response)], host)
    const mediaType = mediaTypeOf(headerOf(headers, 'content-type')) ?? sniffManifestType(body)
    if (mediaType === undefined) throw bodyError(host, 'does not tell the type of a manifest')
    return { digest, mediaType, size: body.length, visibility: response.visibility, body }
  }, options)
}

/**
 * Hashes `body` once for every digest that is given; the first is its name, and sha256 where none is. Throws ERR_DIGEST_MISMATCH. `hash`
 * may be replaced, to count what is hashed.
 */
export function verifyManifest(
  body: Uint8Array,
  expected: readonly (Digest | undefined)[],
  host: string,
  hash: (body: Uint8Array, algorithm: DigestAlgorithm) => Digest = hashOf,
): Digest {
  const digests = [...new Set(expected.filter(digest => digest !== undefined))]
  for (const digest of digests) {
    const actual = hash(body, digestAlgorithm(digest))
    if (actual === digest) continue
    throw new ShoalError('ERR_DIGEST_MISMATCH', `${host} sent a manifest that is not ${digest}`, {
      details: { host, expected: digest, actual },
    })
  }
  return digests[0] ?? hash(body, 'sha256')
}

/** The type that a manifest states of itself, or that its fields betray. Undefined: not a manifest. */
export function sniffManifestType(body: Uint8Array): string | undefined {
  const manifest = parseManifest(body)
  if (manifest === undefined) return undefined
  const { config, layers, manifests, mediaType } = manifest
  if (typeof mediaType === 'string') return mediaType
  if (Array.isArray(manifests)) return MANIFEST_TYPES[0]
  return Array.isArray(layers) && typeof config === 'object' ? MANIFEST_TYPES[1] : undefined
}

/** Undefined when it is no JSON object. */
export function parseManifest(body: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'))
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

function requestFor(method: 'GET' | 'HEAD', key: ManifestKey, { accept }: ManifestOptions): RegistryRequest {
  return {
    method,
    repository: key.repository,
    path: `manifests/${formatReference(key.reference)}`,
    accept: accept ?? MANIFEST_TYPES.join(', '),
  }
}

function infoFrom(response: RegistryResponse, key: ManifestKey): ManifestInfo | undefined {
  const named = namedDigest(response)
  const wanted = wantedDigest(key)
  const length = headerOf(response.headers, 'content-length') ?? ''
  const mediaType = mediaTypeOf(headerOf(response.headers, 'content-type'))
  const digest = wanted ?? named
  if (digest === undefined || mediaType === undefined || !/^[1-9]\d{0,9}$/.test(length) || isEncoded(response)) {
    return undefined
  }
  // Another algorithm's name for the same bytes is no contradiction, but only the bytes can prove that.
  if (wanted !== undefined && named !== undefined && wanted !== named) return undefined
  return { digest, mediaType, size: Number(length), visibility: response.visibility }
}

function wantedDigest({ reference }: ManifestKey): Digest | undefined {
  return 'digest' in reference ? reference.digest : undefined
}

function namedDigest({ headers }: RegistryResponse): Digest | undefined {
  return tryParseDigest(headerOf(headers, 'docker-content-digest') ?? '')
}

function mediaTypeOf(contentType: string | undefined): string | undefined {
  const type = contentType?.split(';', 1)[0]?.trim().toLowerCase()
  // What servers say when they do not know.
  return type === '' || type === 'application/octet-stream' || type === 'text/plain' ? undefined : type
}

function isEncoded({ headers }: RegistryResponse): boolean {
  return (headerOf(headers, 'content-encoding') ?? 'identity').trim().toLowerCase() !== 'identity'
}

function hashOf(body: Uint8Array, algorithm: DigestAlgorithm): Digest {
  return formatDigest(algorithm, createHash(algorithm).update(body).digest('hex'))
}
