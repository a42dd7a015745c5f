import net from 'node:net'
import { ShoalError } from '../../core/index.ts'
import type { BucketConfig } from '../options.ts'
import { configuredUrl } from './configured-url.ts'

/** Where the objects of a bucket are. */
export interface BucketPlace {
  readonly base: URL
  /** `<prefix><hex>` as part of a URL. */
  urlOf(hex: string): URL
}

/** What may stand before the host of the endpoint: lower-case DNS labels. */
const HOST_LABELS = /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/

/** Throws ERR_CONFIG_INVALID, naming the key. Path style: the bucket is the first part of the path; otherwise, of the host. */
export function placeOf(
  name: string,
  { bucket, endpoint, prefix }: Pick<BucketConfig, 'bucket' | 'endpoint' | 'prefix'>,
  options: { readonly pathStyle: boolean },
): BucketPlace {
  const refuse = (key: string, why: string): ShoalError =>
    new ShoalError('ERR_CONFIG_INVALID', `origins."${name}".${key} ${why}`)
  const base = configuredUrl(endpoint, why => refuse('endpoint', why))
  if (base.pathname !== '/') throw refuse('endpoint', 'must be a host, without a path')
  if (bucket === '' || bucket.includes('/')) throw refuse('bucket', 'is not the name of a bucket')
  if (!options.pathStyle) {
    if (isAddress(base)) throw refuse('endpoint', 'is an address, which no bucket can stand before: use path_style')
    if (!HOST_LABELS.test(bucket)) throw refuse('bucket', 'cannot be part of a host name: use path_style')
    base.hostname = `${bucket}.${base.hostname}`
  }
  const folder = `/${options.pathStyle ? `${encodeKey(bucket)}/` : ''}${encodeKey(prefix)}`
  const urlOf = (hex: string): URL => new URL(`${base.origin}${folder}${hex}`)
  // URLs resolve the segments `.` and `..`, keys do not.
  if (urlOf('0').pathname !== `${folder}0`) throw refuse('prefix', 'must not have "." or ".." between slashes')
  return { base, urlOf }
}

/** Whether the host is an IP address or localhost: nothing can stand before it. */
export function isAddress({ hostname }: URL): boolean {
  return hostname === 'localhost' || net.isIP(hostname.replace(/^\[|\]$/g, '')) !== 0
}

/** Every byte but unreserved characters and slashes is escaped, as the canonical URI of SigV4 wants it. */
function encodeKey(key: string): string {
  return key
    .split('/')
    .map(part =>
      encodeURIComponent(part).replace(/[!'()*]/g, char => `%${char.charCodeAt(0).toString(16).toUpperCase()}`),
    )
    .join('/')
}
