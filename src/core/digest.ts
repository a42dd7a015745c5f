import { ShoalError } from './errors.ts'

declare const brand: unique symbol

/** `sha256:<64 lower-case hex>` or `sha512:<128 lower-case hex>`. Only parseDigest() and tryParseDigest() make one. */
export type Digest = string & { readonly [brand]: 'Digest' }

export type DigestAlgorithm = 'sha256' | 'sha512'

const HEX_LENGTH: Readonly<Record<DigestAlgorithm, number>> = { sha256: 64, sha512: 128 }
const PATTERN = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/

/** The digest in `text`, or undefined when it is none (OCI image-spec, descriptor.md: lower-case hex only). */
export function tryParseDigest(text: string): Digest | undefined {
  return PATTERN.test(text) ? (text as Digest) : undefined
}

/** The digest in `text`. Throws ERR_DIGEST_INVALID. */
export function parseDigest(text: string): Digest {
  const digest = tryParseDigest(text)
  if (digest !== undefined) return digest
  throw new ShoalError('ERR_DIGEST_INVALID', `"${clip(text)}" is not a digest: sha256:<64 hex> or sha512:<128 hex>`)
}

/** A digest from its parts, as file names hold them. Throws ERR_DIGEST_INVALID. */
export function formatDigest(algorithm: DigestAlgorithm, hex: string): Digest {
  return parseDigest(`${algorithm}:${hex}`)
}

export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.startsWith('sha512:') ? 'sha512' : 'sha256'
}

export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1)
}

/** Hex characters that a digest of this algorithm has. */
export function digestHexLength(algorithm: DigestAlgorithm): number {
  return HEX_LENGTH[algorithm]
}

function clip(text: string): string {
  return text.length > 160 ? `${text.slice(0, 160)}…` : text
}
