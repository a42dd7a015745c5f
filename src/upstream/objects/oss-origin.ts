import type { OssConfig, UpstreamDeps } from '../options.ts'
import { configuredCredentials, fixedCredentials, type BucketCredentials } from './bucket-credentials.ts'
import { openBucket, type BucketOptions } from './bucket-origin.ts'
import { isAddress, placeOf } from './bucket-place.ts'
import type { ObjectOrigin } from './object-origin.ts'
import { ossSigner } from './oss-signer.ts'

/**
 * A bucket of Alibaba Cloud's OSS, as the first label of the host, or of the path where the endpoint is an address or localhost.
 * Credentials: those of the options, else those of the environment as `env` is now; without any, requests go unsigned. Nothing is asked of
 * it before it is needed. Throws ERR_CONFIG_INVALID.
 */
export async function openOssOrigin(
  deps: UpstreamDeps & { readonly env?: NodeJS.ProcessEnv },
  options: BucketOptions<OssConfig>,
): Promise<ObjectOrigin> {
  const { clock, env = process.env } = deps
  const { bucket, endpoint, name } = options
  const pathStyle = URL.canParse(endpoint) && isAddress(new URL(endpoint))
  const place = placeOf(name, options, { pathStyle })
  const credentials = fixedCredentials(configuredCredentials(name, options) ?? environmentCredentials(env))
  const sign = ossSigner({ clock }, { bucket, pathStyle })
  return openBucket({ ...deps, place, credentials, sign }, { ...options, kind: 'oss' })
}

/** Under the names that ossutil and the SDKs use; set to nothing is not set. */
function environmentCredentials(env: NodeJS.ProcessEnv): BucketCredentials | undefined {
  const [accessKeyId = '', secretAccessKey = '', sessionToken = ''] = [
    env['OSS_ACCESS_KEY_ID'],
    env['OSS_ACCESS_KEY_SECRET'],
    env['OSS_SESSION_TOKEN'],
  ]
  if (accessKeyId === '' || secretAccessKey === '') return undefined
  return { accessKeyId, secretAccessKey, ...(sessionToken === '' ? {} : { sessionToken }) }
}
