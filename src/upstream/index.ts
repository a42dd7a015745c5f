export { DEFAULT_REGISTRIES } from './default-registries.ts'
export { TableEgress, type EgressOptions } from './egress.ts'
export { OciLayoutOrigin, type OciLayoutOptions } from './local/oci-layout.ts'
export type { MirrorState } from './mirrors/index.ts'
export { PUBLIC_TLS } from './net/tls.ts'
export type {
  ConnectionOptions,
  MirrorOptions,
  OriginOptions,
  OriginTableOptions,
  ProxyOptions,
  RegistryOptions,
  TlsOptions,
  UpstreamDeps,
} from './options.ts'
export { RegistryOrigin, type RegistryOriginOptions } from './registry/registry-origin.ts'
export type { RegistryState } from './table/entry.ts'
export { OriginTable } from './table/origin-table.ts'
