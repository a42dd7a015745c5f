import { createHash, createHmac } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import type { Objection } from './rig.ts'

/** A request as it came over the wire. `url`: path and query, as they were sent. */
export interface WireRequest {
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
}

export interface SigV4Expectation {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string
  readonly region: string
  /** Milliseconds since 1970. */
  readonly now: number
}

const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
const MAX_SKEW_MS = 15 * 60_000
const AUTHORIZATION =
  /^AWS4-HMAC-SHA256 Credential=([^/,]+)\/(\d{8})\/([^/,]+)\/s3\/aws4_request, ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})$/

/**
 * Computes the signature of a request to S3 from its documentation ("Authenticating Requests: Using the Authorization Header"), without
 * any code of the signer. Undefined: everything is as it must be.
 */
export function verifySigV4(request: WireRequest, expected: SigV4Expectation): Objection | undefined {
  const { headers } = request
  const match = AUTHORIZATION.exec(headers.authorization ?? '')
  if (match === null) return { status: 403, code: 'AccessDenied' }
  const [, accessKeyId, day = '', region = '', signedNames = '', signature] = match
  if (accessKeyId !== expected.accessKeyId) return { status: 403, code: 'InvalidAccessKeyId' }
  if (region !== expected.region) {
    return { status: 400, code: 'AuthorizationHeaderMalformed', more: `<Region>${expected.region}</Region>` }
  }
  const refused = { status: 403, code: 'SignatureDoesNotMatch' }
  const date = headers['x-amz-date']
  if (typeof date !== 'string' || date.slice(0, 8) !== day) return refused
  if (Math.abs(timeOf(date) - expected.now) > MAX_SKEW_MS) return { status: 403, code: 'RequestTimeTooSkewed' }
  if (headers['x-amz-content-sha256'] !== EMPTY_SHA256) return { status: 400, code: 'XAmzContentSHA256Mismatch' }
  if (headers['x-amz-security-token'] !== expected.sessionToken) return { status: 400, code: 'InvalidToken' }
  const names = signedNames.split(';')
  const mustSign = ['host', ...Object.keys(headers).filter(name => name.startsWith('x-amz-'))]
  if (!mustSign.every(name => names.includes(name))) return refused
  const right = signatureOf(request, names, { day, date, region, secret: expected.secretAccessKey })
  return signature === right ? undefined : refused
}

function signatureOf(
  { headers, method, url }: WireRequest,
  names: readonly string[],
  { date, day, region, secret }: { day: string; date: string; region: string; secret: string },
): string {
  const [path = '', query = ''] = url.split('?')
  const canonical = [
    method,
    // S3 escapes the decoded key anew, so that a client that escapes less, or more, fails here.
    path
      .split('/')
      .map(part => escape(decodeURIComponent(part)))
      .join('/'),
    query.split('&').sort().join('&'),
    ...names.map(name => `${name}:${String(headers[name]).trim().replace(/ +/g, ' ')}`),
    '',
    names.join(';'),
    EMPTY_SHA256,
  ].join('\n')
  const scope = `${day}/${region}/s3/aws4_request`
  const text = ['AWS4-HMAC-SHA256', date, scope, createHash('sha256').update(canonical).digest('hex')].join('\n')
  const key = [day, region, 's3', 'aws4_request'].reduce<Buffer>(hmac, Buffer.from(`AWS4${secret}`))
  return hmac(key, text).toString('hex')
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}

function escape(part: string): string {
  return [...Buffer.from(part)]
    .map(byte => {
      const char = String.fromCharCode(byte)
      return /[A-Za-z0-9._~-]/.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
    })
    .join('')
}

/** 20130524T000000Z */
function timeOf(date: string): number {
  return Date.parse(date.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'))
}
