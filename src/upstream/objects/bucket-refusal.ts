import { ShoalError } from '../../core/index.ts'
import { statusError } from '../net/failures.ts'
import { headerOf, readBody } from '../net/transport.ts'
import type { ObjectAnswer, RequestOptions } from './object-server.ts'

/** Enough for an error document, in which a refused signature is spelled out. */
const MAX_DOCUMENT_BYTES = 64 * 1024

/** What S3, OSS and their like say of credentials that were good once. */
const STALE = new Set([
  'ExpiredToken',
  'InvalidAccessKeyId',
  'InvalidSecurityToken',
  'InvalidToken',
  'SecurityTokenExpired',
  'TokenRefreshRequired',
])

/** Why a server refused a request: of its error document only what is known to be harmless. */
export interface BucketRefusal {
  readonly host: string
  readonly status: number
  /** `NoSuchKey`, `AccessDenied` ...; undefined when the answer does not tell. */
  readonly code: string | undefined
  /** Where the bucket is, when it is not here. */
  readonly region: string | undefined
}

/** Reads a refusal to its end. A document that cannot be read tells nothing; the status is what matters. */
export async function readBucketRefusal(answer: ObjectAnswer, options: RequestOptions): Promise<BucketRefusal> {
  const { headers, host, status } = answer
  const document = await readDocument(answer, options)
  // S3 names the region beside other refusals too, where it is the right one.
  const named = status <= 400 ? headerOf(headers, 'x-amz-bucket-region') : undefined
  const region = wordOf(named) ?? elementOf(document, 'Region') ?? elementOf(document, 'Endpoint')
  return { host, status, code: elementOf(document, 'Code'), region }
}

/** There is no such object, as against no such bucket, no such account ... */
export function isAbsent({ code, status }: BucketRefusal): boolean {
  return status === 404 && (code === undefined || code === 'NoSuchKey')
}

/** Whether other credentials might help. */
export function isStale({ code, status }: BucketRefusal, options: { readonly signed: boolean }): boolean {
  return options.signed ? code !== undefined && STALE.has(code) : status === 401 || status === 403
}

/** ERR_UPSTREAM_AUTH where rights are missing, otherwise ERR_UPSTREAM_STATUS. */
export function bucketError(
  refusal: BucketRefusal,
  { bucket, signed }: { readonly bucket: string; readonly signed: boolean },
): ShoalError {
  const { code, host, region, status } = refusal
  const said = `${status}${code === undefined ? '' : ` (${code})`}`
  const details = { host, ...(code === undefined ? {} : { reason: code }) }
  const failed = (what = ''): ShoalError =>
    new ShoalError('ERR_UPSTREAM_STATUS', `${host} answered ${said}${what}`, { details })
  // For the client it comes to 403: there is no credential that it could offer instead.
  const refused = (what: string): ShoalError =>
    new ShoalError('ERR_UPSTREAM_AUTH', `${host} refused with ${said}: ${what}`, {
      details: { ...details, status: 403 },
    })

  if (code === 'NoSuchBucket') return failed(`: there is no bucket "${bucket}"`)
  if (region !== undefined) return failed(`: the bucket "${bucket}" is at ${region}; set region and endpoint to that`)
  if (status >= 300 && status < 400) return failed(': the bucket is elsewhere, and redirects are not followed')
  if (code === 'RequestTimeTooSkewed')
    return refused('the clocks of the two differ by too much; set the one of this node')
  if (isStale(refusal, { signed: true })) return refused('the credentials have expired or are unknown there')
  if (status === 401 || status === 403) {
    if (!signed) return refused('no credentials were found, so the request was not signed')
    if (code === 'SignatureDoesNotMatch') return refused('the secret key or the region is wrong')
    return refused('the credentials do not suffice; absent objects look the same to who may not list the bucket')
  }
  return code === undefined ? statusError(host, status) : failed()
}

async function readDocument({ body, host }: ObjectAnswer, { signal }: RequestOptions): Promise<string> {
  try {
    return (await readBody(body, MAX_DOCUMENT_BYTES, { host, signal })).toString('utf8')
  } catch {
    signal?.throwIfAborted()
    return ''
  }
}

/** The text of the first such element, when it is one harmless word. The documents are flat, and nothing else of them is used. */
function elementOf(document: string, element: string): string | undefined {
  return wordOf(new RegExp(`<${element}>([^<]{1,100})</${element}>`).exec(document)?.[1])
}

function wordOf(text: string | undefined): string | undefined {
  const word = text?.trim() ?? ''
  return /^[A-Za-z0-9.-]+$/.test(word) ? word : undefined
}
