import type { Registry } from 'prom-client'
import type { Clock, Logger } from '../core/index.ts'

export interface UpstreamDeps {
  readonly log: Logger
  readonly clock: Clock
  /** Where this room declares its metrics. Several origins may share one: the metrics are made once. */
  readonly metrics: Registry
  /** Said as `Via` to registries and mirrors, so that a request that comes back here is known. Absent: nothing. */
  readonly via?: string
}

/** A client certificate: PEM files. Without `key`, the one file holds both. */
export interface ClientCertificate {
  readonly cert: string
  readonly key?: string
}

/** How to speak TLS with a host. `clients` and `serverName` are for that host only; `ca` and `skipVerify` go wherever it leads. */
export interface TlsOptions {
  /** PEM files of authorities to trust besides the public ones. */
  readonly ca: readonly string[]
  readonly clients: readonly ClientCertificate[]
  readonly skipVerify: boolean
  /** The name that is sent and that the certificate must carry, where it differs from the host. */
  readonly serverName?: string
}

/** Headers sent along with every request to a host, by name; each value a line of its own. */
export type ExtraHeaders = Readonly<Record<string, readonly string[]>>

/**
 * Who may read what came from a registry. `auto`: proven place by place. `public`: everybody, and no credential is ever sent. `shared`:
 * everybody, with the node's own credential. `private`: each caller with its own credential, and never with the node's.
 */
export type VisibilityPolicy = 'auto' | 'public' | 'shared' | 'private'

/** What a mirror is asked for: blobs and manifests by digest, manifests by tag. The words of containerd's hosts.toml. */
export type Capability = 'pull' | 'resolve'

/** A server that holds the same blobs as a registry and is asked before it, while it is healthy. The names are nydusd's. */
export interface MirrorOptions {
  /** `http[s]://host[:port]`. */
  readonly host: string
  /** Whether the path of `host` is the root of the API; otherwise `/v2` is added to it unless it ends with that. */
  readonly overridePath: boolean
  readonly headers: ExtraHeaders
  readonly capabilities: readonly Capability[]
  /** Asked whether the mirror is back. Default: `<host>/v2`. */
  readonly pingUrl?: string
  readonly healthCheckIntervalMs: number
  /** Failures after which the mirror is left alone until it answers a ping. */
  readonly failureLimit: number
  /** Without any request for this long, pings pause. */
  readonly healthCheckPauseElapsedMs: number
  /** Whether the mirror also answers challenges: credentials and tokens are for it. Otherwise it gets what the registry granted. */
  readonly authThrough: boolean
  readonly tls: TlsOptions
  /** Instead of the connection's own (dial_timeout of hosts.toml). */
  readonly connectTimeoutMs?: number
}

/** An HTTP proxy through which a registry is reached. The names are nydusd's. */
export interface ProxyOptions {
  readonly url: string
  /** Asked every `checkIntervalMs` whether the proxy works; without it, it is always taken to. */
  readonly pingUrl?: string
  /** Whether a request that the proxy fails (5xx, transport) goes to the registry directly. */
  readonly fallback: boolean
  readonly checkIntervalMs: number
  /** Without any request for this long, pings pause. */
  readonly checkPauseElapsedMs: number
  /** The proxy gets `http:` URLs of an https registry, so that it can see what is asked for; it goes on with https itself. */
  readonly useHttp: boolean
}

export interface RegistryOptions {
  /** `https://host[:port][/prefix]`, or plain `http`. `/v2` is added to the prefix unless it ends with it. */
  readonly host: string
  readonly username?: string
  readonly password?: string
  readonly tls: TlsOptions
  readonly visibility: VisibilityPolicy
  /** In the order to try. */
  readonly mirrors: readonly MirrorOptions[]
  readonly proxy?: ProxyOptions
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

/** A directory that is a registry. */
export interface OciLayoutConfig {
  readonly type: 'oci-layout'
  readonly path: string
}

/** Files named by the hex of their blobs' digests, in `dir` and `altDirs`; or one file that is whatever blob is asked for. nydus's localfs. */
export interface LocalfsConfig {
  readonly type: 'localfs'
  readonly dir?: string
  readonly blobFile?: string
  readonly altDirs: readonly string[]
}

/** A disk or an image of one: blobs are GPT partitions, named as nydus names them; without GPT, the disk is the one blob. */
export interface LocaldiskConfig {
  readonly type: 'localdisk'
  readonly devicePath: string
  readonly disableGpt: boolean
}

/** Any HTTP server with Range: a blob is at `<url>/<hex>`. nydus's http-proxy backend, from the other end. */
export interface HttpOriginConfig {
  readonly type: 'http'
  /** `http[s]://host[:port]/path`, or `unix:/socket` (then the path is `/`, and the socket belongs to one blob). */
  readonly url: string
  readonly headers: ExtraHeaders
  readonly username?: string
  readonly password?: string
  readonly tls: TlsOptions
}

/** A bucket; an object's key is `<prefix><hex>`. */
export interface BucketConfig {
  /** `http[s]://host[:port]`. */
  readonly endpoint: string
  readonly bucket: string
  readonly prefix: string
  readonly accessKeyId?: string
  readonly secretAccessKey?: string
  readonly sessionToken?: string
  readonly tls: TlsOptions
}

export interface S3Config extends BucketConfig {
  readonly type: 's3'
  readonly region: string
  /** The bucket is the first part of the path, as against the first label of the host. */
  readonly pathStyle: boolean
}

export interface OssConfig extends BucketConfig {
  readonly type: 'oss'
}

/** An origin that is not a registry. */
export type OriginOptions = OciLayoutConfig | LocalfsConfig | LocaldiskConfig | HttpOriginConfig | S3Config | OssConfig

export interface OriginTableOptions extends ConnectionOptions {
  /** By the name that images use; `*` answers for every name that has no entry. */
  readonly registries: Readonly<Record<string, RegistryOptions>>
  readonly origins: Readonly<Record<string, OriginOptions>>
  /** A docker config.json; '' means $DOCKER_CONFIG/config.json or ~/.docker/config.json, where there is one. */
  readonly dockerConfig: string
  /** kubelet's CredentialProviderConfig; see KeychainOptions. */
  readonly credentialPlugins: readonly CredentialPluginsOptions[]
  /** A directory of `<host>/hosts.toml`, as containerd has it; '' for none. */
  readonly certsD: string
  /** Whether a name that is in no table is a registry at https://<name>. */
  readonly allowAny: boolean
  /** CIDRs that allowAny may reach although they are private, loopback or link-local. */
  readonly allowPrivate: readonly string[]
}

/** The kubelet's way of telling credential plugins: --image-credential-provider-config and --image-credential-provider-bin-dir. */
export interface CredentialPluginsOptions {
  /** A CredentialProviderConfig in YAML or JSON. */
  readonly config: string
  /** Where the programs named in it are. */
  readonly binDir: string
}
