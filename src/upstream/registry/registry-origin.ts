import { LRUCache } from 'lru-cache'
import {
  parseRepositoryName,
  ShoalError,
  type Logger,
  type BegunBlob,
  type BlobInfo,
  type BlobKey,
  type ByteRange,
  type ListingAnswer,
  type ListingRequest,
  type Manifest,
  type ManifestInfo,
  type ManifestKey,
  type ManifestOptions,
  type Origin,
  type SourceOptions,
} from '../../core/index.ts'
import {
  Authorizer,
  credentialsFor,
  emptyKeychain,
  fixedCredential,
  TokenClient,
  type Credential,
  type CredentialSource,
  type Keychain,
  type TrustedSite,
} from '../auth/index.ts'
import { beginBlob, openBlob, statBlob, type KnownSizes, type OpenDeps } from './blobs.ts'
import { listFrom } from './listing.ts'
import { getManifest, statManifest } from './manifests.ts'
import { createUpstreamMetrics } from '../metrics.ts'
import type { ConnectionOptions, ExtraHeaders, RegistryOptions, UpstreamDeps, VisibilityPolicy } from '../options.ts'
import { RedirectMemory } from './redirects.ts'
import { RegistryClient } from './registry-client.ts'
import { OwnRights, type Rights } from './rights.ts'
import { readTlsMaterial, type TlsMaterial } from '../net/tls.ts'
import { drain, Transport, type TransportOptions } from '../net/transport.ts'
import { upTo } from '../up-to.ts'

const MAX_KNOWN_SIZES = 10_000

export interface RegistryOriginOptions
  extends ConnectionOptions, Pick<RegistryOptions, 'host' | 'username' | 'password' | 'tls' | 'visibility'> {
  /** The name that images use. */
  readonly name: string
  readonly headers: ExtraHeaders
  /** The path of `host` is the root of the API as it is. */
  readonly overridePath?: boolean
  /** Said in every request as `ns`: which registry is meant, where the host is not its own. */
  readonly namespace?: string
}

/** Everything a RegistryOrigin is made from, files read. Two that are equal as JSON behave alike. */
export interface RegistryPlan extends ConnectionOptions {
  readonly name: string
  /** Where /v2/ is, with a trailing slash. */
  readonly base: string
  /** That of the options. It stands alone: with it, no keychain is asked. */
  readonly credential?: Credential
  readonly tls: TlsMaterial
  readonly headers: ExtraHeaders
  readonly visibility: VisibilityPolicy
  readonly namespace?: string
}

/** What a RegistryOrigin works with that is not part of its plan. */
export interface RegistryDeps extends UpstreamDeps, Pick<TransportOptions, 'addresses' | 'kind' | 'proxy'> {
  /** Absent: its own, from the plan's credential or the keychain. */
  readonly rights?: Rights
  /** Asked, by the registry's host, where the plan holds no credential. Default: empty. */
  readonly keychain?: Keychain
  /** The registry whose challenges this one, a mirror of it, may relay. */
  readonly alsoTrusted?: TrustedSite
}

/** Checks the options and reads their files. Throws ERR_CONFIG_INVALID. */
export async function planRegistry(options: RegistryOriginOptions): Promise<RegistryPlan> {
  const { connectTimeoutMs, headers, idleTimeoutMs, maxConnections, name, namespace, retries } = options
  const base = baseOf(name, options.host, options.overridePath === true)
  const credential = ownCredential(options)
  const tls = await readTlsMaterial(options.tls)
  return {
    name,
    base: base.href,
    tls,
    connectTimeoutMs,
    idleTimeoutMs,
    maxConnections,
    retries,
    headers,
    visibility: options.visibility,
    ...(namespace === undefined ? {} : { namespace }),
    ...(credential === undefined ? {} : { credential }),
  }
}

/** A registry that speaks the pull side of the OCI distribution API. Nothing is asked of it before it is needed. */
export class RegistryOrigin implements Origin, AsyncDisposable {
  readonly name: string
  /** Where /v2/ is. */
  readonly base: URL
  /** What mirrors that do not answer challenges are asked with. */
  readonly rights: OwnRights
  /** What mirrors that relay its challenges are to trust. */
  readonly trust: TrustedSite
  readonly #headers: ExtraHeaders
  readonly #transport: Transport
  readonly #client: RegistryClient
  readonly #sizes = new LRUCache<string, number>(upTo(MAX_KNOWN_SIZES))
  readonly #knownSizes: KnownSizes
  readonly #received: (bytes: number) => void

  constructor(deps: RegistryDeps, plan: RegistryPlan) {
    const { addresses, alsoTrusted, clock, kind, proxy } = deps
    const metrics = createUpstreamMetrics(deps.metrics)
    const base = new URL(plan.base)
    const log = deps.log.child({ origin: plan.name })
    const trust: TrustedSite = { base, credentials: credentialsOf(plan, deps.keychain ?? emptyKeychain, base, log) }
    const transport = new Transport({ clock, metrics }, { ...plan, base, addresses, kind, proxy })
    const tokens = new TokenClient({ clock, metrics, transport })
    const authorizer = new Authorizer({ clock, log, tokens }, { ...trust, alsoTrusted })
    const redirects = new RedirectMemory({ clock })
    this.name = `registry:${plan.name}`
    this.base = base
    this.trust = trust
    this.rights = new OwnRights({ own: deps.rights ?? authorizer, clock })
    this.#headers = { ...(deps.via === undefined ? {} : { via: [deps.via] }), ...lowerCased(plan.headers) }
    this.#transport = transport
    this.#client = new RegistryClient(
      { log, clock, metrics, transport, rights: this.rights, redirects },
      { ...plan, headers: this.#headers, base },
    )
    this.#knownSizes = {
      get: key => this.#sizes.get(sizeKey(key)),
      forget: key => this.#sizes.delete(sizeKey(key)),
    }
    this.#received = bytes => metrics.bytes.inc(bytes)
  }

  /** Throws ERR_CONFIG_INVALID. */
  static async open(deps: RegistryDeps, options: RegistryOriginOptions): Promise<RegistryOrigin> {
    return new RegistryOrigin(deps, await planRegistry(options))
  }

  async stat(key: BlobKey, options: SourceOptions = {}): Promise<BlobInfo | undefined> {
    parseRepositoryName(key.repository)
    const info = await statBlob(this.#client, key, options)
    if (info !== undefined) this.#sizes.set(sizeKey(key), info.size)
    return info
  }

  async open(
    key: BlobKey,
    range: ByteRange,
    options: SourceOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    parseRepositoryName(key.repository)
    return openBlob(this.#openDeps(), key, range, options)
  }

  async begin(key: BlobKey, range: ByteRange, options: SourceOptions = {}): Promise<BegunBlob | undefined> {
    parseRepositoryName(key.repository)
    const begun = await beginBlob(this.#openDeps(), key, range, options)
    if (begun !== undefined) this.#sizes.set(sizeKey(key), begun.info.size)
    return begun
  }

  readsWhole(): boolean {
    return this.#client.hasRangelessHost
  }

  async statManifest(key: ManifestKey, options: ManifestOptions = {}): Promise<ManifestInfo | undefined> {
    parseRepositoryName(key.repository)
    return statManifest(this.#client, key, options)
  }

  async getManifest(key: ManifestKey, options: ManifestOptions = {}): Promise<Manifest | undefined> {
    parseRepositoryName(key.repository)
    return getManifest(this.#client, key, options)
  }

  async list(request: ListingRequest, options: SourceOptions = {}): Promise<ListingAnswer> {
    parseRepositoryName(request.repository)
    return listFrom(this.#client, request, options)
  }

  /**
   * The status with which the host answers a GET of `url`. `direct`: past the proxy, where requests may go there without it. Throws as
   * Transport.send does.
   */
  async ping(
    url: URL,
    { direct = false, signal }: { readonly direct?: boolean; readonly signal: AbortSignal },
  ): Promise<number> {
    const headers = url.origin === this.base.origin ? this.#headers : {}
    // What is secret goes past the proxy wherever it may.
    const request = { method: 'GET', headers, ping: true, secret: direct, signal } as const
    const { body, status } = await this.#transport.send(url, request)
    drain(body)
    return status
  }

  /** Refuses new requests with ERR_CLOSED and waits for those under way. May be called again. */
  close(): Promise<void> {
    return this.#transport.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #openDeps(): OpenDeps {
    return { client: this.#client, sizes: this.#knownSizes, received: this.#received }
  }
}

/** So that none of them is sent twice, once as configured and once as we spell it. */
function lowerCased(headers: ExtraHeaders): ExtraHeaders {
  return Object.fromEntries(Object.entries(headers).map(([name, values]) => [name.toLowerCase(), values]))
}

function sizeKey({ digest, repository }: BlobKey): string {
  return `${repository}@${digest}`
}

function ownCredential({ password, username }: RegistryOriginOptions): Credential | undefined {
  const isSet = username !== undefined && username !== '' && password !== undefined && password !== ''
  return isSet ? { kind: 'password', username, password } : undefined
}

function credentialsOf(
  { credential, visibility }: RegistryPlan,
  keychain: Keychain,
  base: URL,
  log: Logger,
): CredentialSource | undefined {
  if (visibility === 'public' || visibility === 'private') return undefined
  if (credential !== undefined) return fixedCredential(credential)
  const found = credentialsFor(keychain, base)
  return visibility === 'shared' || found === undefined ? found : announced(found, log)
}

/** What a login of the keychain opens, every caller on this node may read. An operator who has not said so is told once. */
function announced(source: CredentialSource, log: Logger): CredentialSource {
  let isTold = false
  return {
    get: async (repository, options) => {
      const credential = await source.get(repository, options)
      if (credential !== undefined && !isTold) {
        isTold = true
        const hint = 'visibility = "shared" says that this is meant, "private" prevents it'
        log.warn({ hint }, 'what the login in the keychain opens is readable for every local caller')
      }
      return credential
    },
  }
}

/** The message names the key, never the value: it may hold a password. */
function baseOf(name: string, host: string, overridePath: boolean): URL {
  const refuse = (why: string): ShoalError => new ShoalError('ERR_CONFIG_INVALID', `registries."${name}".host ${why}`)
  if (!URL.canParse(host)) throw refuse('is not a URL such as https://registry.example')
  const url = new URL(host)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw refuse('must begin with https:// or http://')
  if (url.username !== '' || url.password !== '')
    throw refuse('must not hold a credential; use username and password_file')
  if (url.search !== '' || url.hash !== '') throw refuse('must not have a query or a fragment')
  const prefix = url.pathname.replace(/\/+$/, '')
  url.pathname = overridePath || prefix.endsWith('/v2') ? `${prefix}/` : `${prefix}/v2/`
  return url
}
