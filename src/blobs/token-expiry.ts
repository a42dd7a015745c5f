import { isTree } from '../core/index.ts'

/**
 * When a bearer token says that it expires (`exp` of a JWT, RFC 7519), in milliseconds since 1970. Undefined: it does not say, or is none.
 * Nothing is verified: who believes it can only lose.
 */
export function tokenExpiry(authorization: string): number | undefined {
  const payload = /^bearer +[\w-]+\.([\w-]+)\.[\w-]*$/i.exec(authorization)?.[1]
  if (payload === undefined) return undefined
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'))
    const seconds = isTree(claims) ? claims['exp'] : undefined
    return typeof seconds === 'number' ? seconds * 1000 : undefined
  } catch {
    return undefined
  }
}
