import { createHash } from 'node:crypto'

/** Visible ASCII: anything else could break out of the header that it goes into. */
const HEADER_WORD = /^[\x21-\x7e]+$/

/** What proves at a registry who the node is. Never logged. */
export type Credential =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  /** An OAuth2 refresh token, for the registry's token service. */
  | { readonly kind: 'identity-token'; readonly token: string }
  /** A registry token, sent as it is. */
  | { readonly kind: 'bearer'; readonly token: string }

/** Where the credential for one registry comes from. */
export interface CredentialSource {
  /**
   * Undefined: there is none. `refused`: what the registry would not have, so that whatever was kept is looked at anew, and only another
   * credential is an answer. Throws `signal.reason` when aborted, ERR_CLOSED, and nothing else.
   */
  get(repository: string, options: CredentialOptions): Promise<Credential | undefined>
}

export interface CredentialOptions {
  readonly signal?: AbortSignal | undefined
  readonly refused?: Credential | undefined
}

/** The one credential of a static configuration. */
export function fixedCredential(credential: Credential): CredentialSource {
  return { get: (_repository, { refused }) => Promise.resolve(refused === undefined ? credential : undefined) }
}

/**
 * A login as files and helpers tell it. A password without a user is a registry token (nydus and others write them so). Undefined: it is
 * not complete, or nothing that a header could carry.
 */
export function loginCredential(username: string, password: string): Credential | undefined {
  if (password === '') return undefined
  return username === '' ? tokenCredential('bearer', password) : { kind: 'password', username, password }
}

/** Undefined: not a token. */
export function tokenCredential(kind: 'identity-token' | 'bearer', token: string): Credential | undefined {
  return isHeaderWord(token) ? { kind, token } : undefined
}

export function isHeaderWord(text: string): boolean {
  return HEADER_WORD.test(text)
}

/** Tells credentials apart without holding the secret. */
export function credentialId(credential: Credential): string {
  const { kind } = credential
  const secrets = kind === 'password' ? [credential.username, credential.password] : [credential.token]
  return createHash('sha256')
    .update(JSON.stringify([kind, ...secrets]))
    .digest('base64url')
}

export function isSameCredential(one: Credential | undefined, other: Credential | undefined): boolean {
  if (one === undefined || other === undefined) return one === other
  return credentialId(one) === credentialId(other)
}

/** RFC 7617. */
export function basicAuthorization({ username, password }: Credential & { readonly kind: 'password' }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}
