import { createHmac } from 'node:crypto'
import type { Objection } from './rig.ts'
import type { WireRequest } from './sigv4-verifier.ts'

export interface OssExpectation {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string
  /** `/<bucket>/<key>`, unescaped. */
  readonly resource: string
  readonly now: number
}

const MAX_SKEW_MS = 15 * 60_000

/** Computes the signature of a request to OSS from its documentation ("Include signatures in the Authorization header", version 1). */
export function verifyOss({ headers, method }: WireRequest, expected: OssExpectation): Objection | undefined {
  const match = /^OSS ([^:]+):([A-Za-z0-9+/]{27}=)$/.exec(headers.authorization ?? '')
  if (match === null) return { status: 403, code: 'AccessDenied' }
  if (match[1] !== expected.accessKeyId) return { status: 403, code: 'InvalidAccessKeyId' }
  const { date = '' } = headers
  if (!(Math.abs(Date.parse(date) - expected.now) <= MAX_SKEW_MS)) return { status: 403, code: 'RequestTimeTooSkewed' }
  if (headers['x-oss-security-token'] !== expected.sessionToken) return { status: 403, code: 'InvalidSecurityToken' }
  const ossHeaders = Object.entries(headers)
    .filter(([name]) => name.startsWith('x-oss-'))
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([name, value]) => `${name}:${String(value).trim()}\n`)
  const text = [
    method,
    headers['content-md5'] ?? '',
    headers['content-type'] ?? '',
    date,
    `${ossHeaders.join('')}${expected.resource}`,
  ].join('\n')
  const right = createHmac('sha1', expected.secretAccessKey).update(text).digest('base64')
  return match[2] === right ? undefined : { status: 403, code: 'SignatureDoesNotMatch' }
}
