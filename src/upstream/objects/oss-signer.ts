import { createHmac } from 'node:crypto'
import type { Clock } from '../../core/index.ts'
import type { SignRequest } from './bucket-server.ts'

/**
 * Version 1 of OSS's signatures: an HMAC over the method, the date, the headers that begin with x-oss- and the resource, which is the
 * bucket and the key as they are, unescaped, in whichever style they are addressed.
 */
export function ossSigner(
  deps: { readonly clock: Clock },
  options: { readonly bucket: string; readonly pathStyle: boolean },
): SignRequest {
  return ({ method, url }, { accessKeyId, secretAccessKey, sessionToken }) => {
    const date = new Date(deps.clock.now()).toUTCString()
    const path = decodeURIComponent(url.pathname)
    const resource = options.pathStyle ? path : `/${options.bucket}${path}`
    const token = sessionToken === undefined ? {} : { 'x-oss-security-token': sessionToken }
    const ossHeaders = Object.entries(token).map(([name, value]) => `${name}:${value}\n`)
    // Between the method and the date: Content-MD5 and Content-Type, which a request without a body does not have.
    const text = `${method}\n\n\n${date}\n${ossHeaders.join('')}${resource}`
    const signature = createHmac('sha1', secretAccessKey).update(text).digest('base64')
    return Promise.resolve({ date, ...token, authorization: `OSS ${accessKeyId}:${signature}` })
  }
}
