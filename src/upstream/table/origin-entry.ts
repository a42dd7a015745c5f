import type { BlobSource } from '../../core/index.ts'
import { LocaldiskOrigin } from '../local/localdisk.ts'
import { LocalfsOrigin } from '../local/localfs.ts'
import { OciLayoutOrigin } from '../local/oci-layout.ts'
import { openHttpOrigin, openOssOrigin, openS3Origin } from '../objects/index.ts'
import type { ConnectionOptions, OciLayoutConfig, OriginOptions, UpstreamDeps } from '../options.ts'
import { blobsOnly } from './blobs-only.ts'
import type { Entry } from './entry.ts'

/** The entry of an origin that is not a registry. Throws ERR_CONFIG_INVALID. */
export async function makeOriginEntry(
  deps: UpstreamDeps,
  name: string,
  options: OriginOptions,
  connection: ConnectionOptions,
): Promise<Entry> {
  if (options.type === 'oci-layout') {
    const layout = await OciLayoutOrigin.open(deps, { name, path: options.path })
    return { origin: layout, sources: [layout], close: () => layout.close() }
  }
  const source = await openSource(deps, name, options, connection)
  return { origin: blobsOnly(source), sources: [source], close: () => source.close() }
}

function openSource(
  deps: UpstreamDeps,
  name: string,
  options: Exclude<OriginOptions, OciLayoutConfig>,
  connection: ConnectionOptions,
): Promise<BlobSource & { close(): Promise<void> }> {
  switch (options.type) {
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
