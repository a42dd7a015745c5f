import type { Registry } from 'prom-client'
import type { Clock, Logger } from '../core/index.ts'

export interface UpstreamDeps {
  readonly log: Logger
  readonly clock: Clock
  /** Where this room declares its metrics. Several origins may share one: the metrics are made once. */
  readonly metrics: Registry
}

/**
 * How to speak TLS with a registry. `cert`, `key` and `serverName` are for its own host only; `ca` and `skipVerify` go wherever it leads.
 * Absent and '' are the same.
 */
export interface TlsOptions {
  /** PEM file of authorities to trust besides the public ones. */
  readonly ca?: string
  /** PEM files of the client certificate and its key: both or neither. */
  readonly cert?: string
  readonly key?: string
  readonly skipVerify: boolean
  /** The name that is sent and that the certificate must carry, where it differs from the host. */
  readonly serverName?: string
}

export interface RegistryOptions {
  /** `https://host[:port][/prefix]`, or plain `http`. `/v2` is added to the prefix unless it ends with it. */
  readonly host: string
  readonly username?: string
  readonly password?: string
  readonly tls: TlsOptions
}

export interface ConnectionOptions {
  readonly connectTimeoutMs: number
  /** No headers, or no byte of a body, for this long ends a request. A body that its reader does not pull is not idle. */
  readonly idleTimeoutMs: number
  /** Attempts after the first. */
  readonly retries: number
  /** To one host at a time: some of them for bodies of blobs, some for all else, at least one of each. */
  readonly maxConnections: number
}

/** An origin that is not a registry. */
export interface OriginOptions {
  readonly type: 'oci-layout'
  readonly path: string
}

export interface OriginTableOptions extends ConnectionOptions {
  /** By the name that images use; `*` answers for every name that has no entry. */
  readonly registries: Readonly<Record<string, RegistryOptions>>
  readonly origins: Readonly<Record<string, OriginOptions>>
  /** A docker config.json; '' means $DOCKER_CONFIG/config.json or ~/.docker/config.json, where there is one. */
  readonly dockerConfig: string
}
