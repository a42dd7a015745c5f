import type { Origin } from '../../core/index.ts'
import { LocaldiskOrigin } from '../local/localdisk.ts'
import { LocalfsOrigin } from '../local/localfs.ts'
import { OciLayoutOrigin } from '../local/oci-layout.ts'
import { openHttpOrigin, openOssOrigin, openS3Origin } from '../objects/index.ts'
import type { ConnectionOptions, OriginOptions, UpstreamDeps } from '../options.ts'
import type { Entry } from './entry.ts'

/** The entry of an origin that is not a registry. Throws ERR_CONFIG_INVALID. */
export async function makeOriginEntry(
  deps: UpstreamDeps,
  name: string,
  options: OriginOptions,
  connection: ConnectionOptions,
): Promise<Entry> {
  const origin = await openOrigin(deps, name, options, connection)
  return { origin, sources: [origin], close: () => origin.close() }
}

function openOrigin(
  deps: UpstreamDeps,
  name: string,
  options: OriginOptions,
  connection: ConnectionOptions,
): Promise<Origin & { close(): Promise<void> }> {
  switch (options.type) {
    case 'oci-layout':
      return OciLayoutOrigin.open(deps, { name, path: options.path })
    case 'localfs':
      return LocalfsOrigin.open(deps, { ...options, name })
    case 'localdisk':
      return LocaldiskOrigin.open(deps, { ...options, name })
    case 'http':
      return openHttpOrigin(deps, { ...options, ...connection, name })
    case 's3':
      return openS3Origin(deps, { ...options, ...connection, name })
    case 'oss':
      return openOssOrigin(deps, { ...options, ...connection, name })
  }
}
