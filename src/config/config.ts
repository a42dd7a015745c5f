import type { ListenAddress } from './address.ts'
import type { LogLevel } from './schema.ts'

export interface TlsConfig {
  /** Absolute paths of PEM files. */
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly skipVerify: boolean
  readonly serverName?: string
}

export interface RegistryConfig {
  /** http:// or https://, without a final slash. */
  readonly host: string
  readonly username?: string
  /** Read from password_file. Never to be logged or printed. */
  readonly password?: string
  readonly tls: TlsConfig
}

export interface OriginConfig {
  readonly type: 'oci-layout'
  /** Absolute. */
  readonly path: string
}

/** The configuration as the daemon uses it: every key has a value, units are resolved, paths are absolute. Frozen, at every depth. */
export interface Config {
  readonly mirror: {
    readonly listen: readonly ListenAddress[]
    /** Normalised. */
    readonly defaultRegistry: string
    readonly drainTimeoutMs: number
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
  readonly upstream: {
    readonly connectTimeoutMs: number
    readonly idleTimeoutMs: number
    readonly retries: number
    readonly maxConnections: number
    /** Absolute, or '' for the Docker client's own place. */
    readonly dockerConfig: string
  }
  /** By normalised name; '*' stands for any other. */
  readonly registries: Readonly<Record<string, RegistryConfig>>
  /** By normalised name. */
  readonly origins: Readonly<Record<string, OriginConfig>>
  readonly log: { readonly level: LogLevel; readonly access: boolean }
}
