import type { S3Config, UpstreamDeps } from '../options.ts'
import { configuredCredentials, fixedCredentials } from './bucket-credentials.ts'
import { openBucket, type BucketOptions } from './bucket-origin.ts'
import { placeOf } from './bucket-place.ts'
import type { ObjectOrigin } from './object-origin.ts'
import { ChainCredentials } from './s3-credentials.ts'
import { s3Signer } from './s3-signer.ts'

/**
 * A bucket of S3, or of a server that speaks like it. Credentials: those of the options, else what the AWS SDK's default chain finds
 * (environment, shared files, web identity, container, instance metadata) when they are needed; where there are none at all, requests go
 * unsigned. Nothing is asked of it before it is needed. Throws ERR_CONFIG_INVALID.
 */
export async function openS3Origin(deps: UpstreamDeps, options: BucketOptions<S3Config>): Promise<ObjectOrigin> {
  const { clock, log } = deps
  const { name, pathStyle, region } = options
  const place = placeOf(name, options, { pathStyle })
  const configured = configuredCredentials(name, options)
  const credentials =
    configured === undefined
      ? await ChainCredentials.open({ clock, log: log.child({ origin: name }) })
      : fixedCredentials(configured)
  const sign = await s3Signer({ clock }, { region })
  return openBucket({ ...deps, place, credentials, sign }, { ...options, kind: 's3' })
}
