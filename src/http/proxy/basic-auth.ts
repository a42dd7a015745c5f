import { createHash, timingSafeEqual } from 'node:crypto'

/** Whether a Proxy-Authorization header is good. */
export type Gate = (header: string | undefined) => boolean

/**
 * Basic authentication (RFC 7617). Digests are compared, in constant time, so that neither the length nor the first wrong byte of a guess
 * shows. Without a user name the gate is open.
 */
export function basicGate({ username, password }: { username?: string; password?: string }): Gate {
  if (username === undefined) return () => true
  const expected = sha256(Buffer.from(`${username}:${password ?? ''}`))
  return header => {
    const [, encoded] = /^basic +([a-z0-9+/_-]+=*) *$/i.exec(header ?? '') ?? []
    return encoded !== undefined && timingSafeEqual(sha256(Buffer.from(encoded, 'base64')), expected)
  }
}

function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest()
}
