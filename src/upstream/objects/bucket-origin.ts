import { createUpstreamMetrics } from '../metrics.ts'
import { readTlsMaterial } from '../net/tls.ts'
import { Transport } from '../net/transport.ts'
import type { BucketConfig, ConnectionOptions, UpstreamDeps } from '../options.ts'
import { BucketServer, type BucketServerDeps } from './bucket-server.ts'
import { ObjectOrigin } from './object-origin.ts'

export type BucketOptions<Config extends BucketConfig> = Config & ConnectionOptions & { readonly name: string }

/** What S3 and OSS have in common. Throws ERR_CONFIG_INVALID. */
export async function openBucket(
  deps: UpstreamDeps & Pick<BucketServerDeps, 'credentials' | 'place' | 'sign'>,
  options: BucketOptions<BucketConfig> & { readonly kind: 's3' | 'oss' },
): Promise<ObjectOrigin> {
  const { clock, credentials, place, sign } = deps
  const { bucket, kind, name, retries } = options
  const tls = await readTlsMaterial(options.tls)
  const metrics = createUpstreamMetrics(deps.metrics)
  const transport = new Transport({ clock, metrics }, { ...options, base: place.base, tls })
  const server = new BucketServer({ transport, place, credentials, sign }, { bucket })
  const log = deps.log.child({ origin: name })
  return new ObjectOrigin({ clock, log, metrics, server }, { name: `${kind}:${name}`, retries })
}
