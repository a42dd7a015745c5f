import type { OriginConfig } from './config.ts'
import { present, toHeaders, toTls, withoutSlash } from './resolve-parts.ts'
import type { RawOrigin } from './schema-origins.ts'

/** `secretAt` tells what the file holds that a key of this origin names. Validation has seen to it that the keys of a type are there. */
export function toOrigin(raw: RawOrigin, secretAt: (key: string) => string | undefined): OriginConfig {
  switch (raw.type) {
    case 'oci-layout':
      return { type: raw.type, path: raw.path ?? '' }
    case 'localfs':
      return {
        type: raw.type,
        ...present('dir', raw.dir),
        ...present('blobFile', raw.blob_file),
        altDirs: raw.alt_dirs ?? [],
      }
    case 'localdisk':
      return { type: raw.type, devicePath: raw.device_path ?? '', disableGpt: raw.disable_gpt ?? false }
    case 'http':
      return {
        type: raw.type,
        url: withoutSlash(raw.url ?? ''),
        headers: toHeaders(raw.headers ?? {}),
        ...present('username', raw.username),
        ...present('password', secretAt('password_file')),
        tls: toTls(raw.tls),
      }
    case 's3':
      return { type: raw.type, ...toBucket(raw, secretAt), region: raw.region ?? '', pathStyle: raw.path_style ?? true }
    case 'oss':
      return { type: raw.type, ...toBucket(raw, secretAt) }
  }
}

function toBucket(
  raw: RawOrigin,
  secretAt: (key: string) => string | undefined,
): Omit<Extract<OriginConfig, { type: 'oss' }>, 'type'> {
  return {
    endpoint: withoutSlash(raw.endpoint ?? ''),
    bucket: raw.bucket ?? '',
    prefix: raw.prefix ?? '',
    ...present('accessKeyId', raw.access_key_id),
    ...present('secretAccessKey', secretAt('secret_access_key_file')),
    ...present('sessionToken', secretAt('session_token_file')),
    tls: toTls(raw.tls),
  }
}
