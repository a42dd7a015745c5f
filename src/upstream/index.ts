export { DEFAULT_REGISTRIES } from './default-registries.ts'
export { readDockerConfig, type Credential, type Keychain } from './auth/keychain.ts'
export { OciLayoutOrigin, type OciLayoutOptions } from './local/oci-layout.ts'
export type {
  ConnectionOptions,
  OriginOptions,
  OriginTableOptions,
  RegistryOptions,
  TlsOptions,
  UpstreamDeps,
} from './options.ts'
export { OriginTable } from './origin-table.ts'
export { RegistryOrigin, type RegistryOriginOptions } from './registry/registry-origin.ts'
