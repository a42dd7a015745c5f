import type { Digest } from '../core/index.ts'
import type { ListenAddress } from './address.ts'
import type { RawMirror, RawRegistry } from './schema-registries.ts'
import type { LogLevel, RawRule } from './schema.ts'

export interface TlsConfig {
  /** Absolute paths of PEM files, here and in `clients`. */
  readonly ca: readonly string[]
  readonly clients: readonly { readonly cert: string; readonly key: string }[]
  readonly skipVerify: boolean
  readonly serverName?: string
}

/** By name, in the writing of the configuration; each value a line of its own. */
export type HeadersConfig = Readonly<Record<string, readonly string[]>>

export interface MirrorConfig {
  /** http:// or https://, without a final slash. */
  readonly host: string
  readonly overridePath: boolean
  readonly headers: HeadersConfig
  readonly capabilities: RawMirror['capabilities']
  readonly pingUrl?: string
  readonly healthCheckIntervalMs: number
  readonly failureLimit: number
  readonly healthCheckPauseElapsedMs: number
  readonly authThrough: boolean
  readonly tls: TlsConfig
}

export interface UpstreamProxyConfig {
  readonly url: string
  readonly pingUrl?: string
  readonly fallback: boolean
  readonly checkIntervalMs: number
  readonly checkPauseElapsedMs: number
  readonly useHttp: boolean
}

export interface RegistryConfig {
  /** http:// or https://, without a final slash. */
  readonly host: string
  readonly username?: string
  /** Read from password_file. Never to be logged or printed. */
  readonly password?: string
  readonly tls: TlsConfig
  readonly visibility: RawRegistry['visibility']
  /** In the order to try. */
  readonly mirrors: readonly MirrorConfig[]
  readonly proxy?: UpstreamProxyConfig
}

/** What s3 and oss have in common. The secrets are read from files, and never to be logged or printed. */
interface BucketConfig {
  /** http:// or https://, without a final slash. */
  readonly endpoint: string
  readonly bucket: string
  readonly prefix: string
  readonly accessKeyId?: string
  readonly secretAccessKey?: string
  readonly sessionToken?: string
  readonly tls: TlsConfig
}

/** Paths are absolute. */
export type OriginConfig =
  | { readonly type: 'oci-layout'; readonly path: string }
  | { readonly type: 'localfs'; readonly dir?: string; readonly blobFile?: string; readonly altDirs: readonly string[] }
  | { readonly type: 'localdisk'; readonly devicePath: string; readonly disableGpt: boolean }
  | {
      readonly type: 'http'
      /** http:// or https://, without a final slash; or `unix:/socket`. */
      readonly url: string
      readonly headers: HeadersConfig
      readonly username?: string
      readonly password?: string
      readonly tls: TlsConfig
    }
  | ({ readonly type: 's3'; readonly region: string; readonly pathStyle: boolean } & BucketConfig)
  | ({ readonly type: 'oss' } & BucketConfig)

/** Blobs for clients that know no registry: below a path of the mirror, or the one blob of a socket. `origin` is normalised. */
export type BlobEndpoint =
  | { readonly prefix: string; readonly origin: string; readonly repository: string }
  | { readonly socket: string; readonly origin: string; readonly repository: string; readonly digest: Digest }

export interface ProxyRule {
  /** A regular expression. */
  readonly match: string
  readonly action: RawRule['action']
  readonly useHttps: boolean
  /** There for the action `redirect`, and for it alone. */
  readonly redirect?: string
}

/** The configuration as the daemon uses it: every key has a value, units are resolved, paths are absolute. Frozen, at every depth. */
export interface Config {
  readonly mirror: {
    readonly listen: readonly ListenAddress[]
    /** Normalised. */
    readonly defaultRegistry: string
    readonly drainTimeoutMs: number
    /** Normalised names by Host header, host or host:port in lower case. */
    readonly hosts: Readonly<Record<string, string>>
    readonly blobs: readonly BlobEndpoint[]
  }
  readonly health: { readonly listen: readonly ListenAddress[] }
  readonly admin: { readonly listen: readonly ListenAddress[] }
  readonly state: { readonly path: string }
  readonly store: {
    /** 0: to be chosen by the store from what is free. */
    readonly maxBytes: number
    readonly minFreeBytes: number
    readonly memoryBytes: number
  }
  readonly manifests: { readonly tagTtlMs: number; readonly serveStale: boolean }
  readonly proxy: {
    readonly enabled: boolean
    /** Host patterns, lower case. */
    readonly intercept: readonly string[]
    readonly username?: string
    /** Never to be logged or printed. */
    readonly password?: string
    readonly rules: readonly ProxyRule[]
  }
  readonly upstream: {
    readonly allowAny: boolean
    /** CIDRs and addresses. */
    readonly allowPrivate: readonly string[]
    /** Absolute, or '' for none. */
    readonly certsD: string
    readonly connectTimeoutMs: number
    readonly idleTimeoutMs: number
    readonly retries: number
    readonly maxConnections: number
    /** Absolute, or '' for the Docker client's own place. */
    readonly dockerConfig: string
    /** Absolute paths. */
    readonly credentialPlugins: readonly { readonly config: string; readonly binDir: string }[]
  }
  /** By normalised name; '*' stands for any other. */
  readonly registries: Readonly<Record<string, RegistryConfig>>
  /** By normalised name. */
  readonly origins: Readonly<Record<string, OriginConfig>>
  readonly log: { readonly level: LogLevel; readonly access: boolean }
}
