export { formatListenAddress, parseListenAddress, type ListenAddress } from './address.ts'
export { annotatedConfig } from './annotate.ts'
export type {
  BlobEndpoint,
  Config,
  HeadersConfig,
  MirrorConfig,
  OriginConfig,
  ProxyRule,
  RegistryConfig,
  TlsConfig,
  UpstreamProxyConfig,
} from './config.ts'
export { configDocument } from './document.ts'
export { configSchema } from './json-schema.ts'
export { DEFAULT_CONFIG_FILE, loadConfig, type LoadedConfig, type LoadOptions } from './load.ts'
export { printConfig } from './print.ts'
export { needingRestart } from './restart.ts'
export type { LogLevel, RawConfig } from './schema.ts'
export { formatDuration, formatSize, parseDuration, parseSize } from './units.ts'
