import type { Clock } from '../../core/index.ts'
import type { SignRequest } from './bucket-server.ts'

/**
 * Signature Version 4 in the Authorization header, over the host and the headers that it brings along; the payload is signed as empty. The
 * libraries are loaded no sooner than somebody has a bucket.
 */
export async function s3Signer(
  deps: { readonly clock: Clock },
  options: { readonly region: string },
): Promise<SignRequest> {
  const [{ SignatureV4 }, { Sha256 }] = await Promise.all([
    import('@smithy/signature-v4'),
    import('@aws-crypto/sha256-js'),
  ])
  return async ({ method, url }, { accessKeyId, secretAccessKey, sessionToken }) => {
    const signer = new SignatureV4({
      service: 's3',
      region: options.region,
      credentials: { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) },
      sha256: Sha256,
      // The path is escaped already, and S3 alone among the services wants it escaped once.
      uriEscapePath: false,
    })
    const request = {
      method,
      protocol: url.protocol,
      hostname: url.hostname,
      path: url.pathname,
      query: {},
      headers: { host: url.host },
    }
    const { headers } = await signer.sign(request, { signingDate: new Date(deps.clock.now()) })
    return headers
  }
}
