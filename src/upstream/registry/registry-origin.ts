import { LRUCache } from 'lru-cache'
import {
  normaliseRegistry,
  parseRepositoryName,
  ShoalError,
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
import { Authorizer } from '../auth/authorizer.ts'
import { beginBlob, openBlob, statBlob, type KnownSizes, type OpenDeps } from './blobs.ts'
import { DEFAULT_REGISTRIES } from '../default-registries.ts'
import { emptyKeychain, type Credential, type Keychain } from '../auth/keychain.ts'
import { listFrom } from './listing.ts'
import { getManifest, statManifest } from './manifests.ts'
import { createUpstreamMetrics } from '../metrics.ts'
import type { ConnectionOptions, RegistryOptions, UpstreamDeps } from '../options.ts'
import { RedirectMemory } from './redirects.ts'
import { RegistryClient } from './registry-client.ts'
import { readTlsMaterial, type TlsMaterial } from '../net/tls.ts'
import { TokenClient } from '../auth/tokens.ts'
import { Transport } from '../net/transport.ts'

const MAX_KNOWN_SIZES = 10_000

export interface RegistryOriginOptions extends RegistryOptions, ConnectionOptions {
  /** The name that images use. */
  readonly name: string
  /**
   * Asked where the options hold no credential: by the registry's host, and by its name only where that host is known to be the name's
   * own. Never asked for the public registries' logins when the way there is plain http.
   */
  readonly keychain?: Keychain
}

/** Everything a RegistryOrigin is made from, files read. Two that are equal as JSON behave alike. */
export interface RegistryPlan extends ConnectionOptions {
  readonly name: string
  /** Where /v2/ is, with a trailing slash. */
  readonly base: string
  readonly credential?: Credential
  readonly tls: TlsMaterial
}

/** Checks the options and reads their files. Throws ERR_CONFIG_INVALID. */
export async function planRegistry(options: RegistryOriginOptions): Promise<RegistryPlan> {
  const { connectTimeoutMs, idleTimeoutMs, keychain, maxConnections, name, retries } = options
  const base = baseOf(name, options.host)
  const credential = ownCredential(options) ?? credentialFrom(keychain ?? emptyKeychain, name, base)
  const tls = await readTlsMaterial(options.tls)
  return {
    name,
    base: base.href,
    tls,
    connectTimeoutMs,
    idleTimeoutMs,
    maxConnections,
    retries,
    ...(credential === undefined ? {} : { credential }),
  }
}

/** A registry that speaks the pull side of the OCI distribution API. Nothing is asked of it before it is needed. */
export class RegistryOrigin implements Origin, AsyncDisposable {
  readonly name: string
  readonly #transport: Transport
  readonly #client: RegistryClient
  readonly #sizes = new LRUCache<string, number>({ max: MAX_KNOWN_SIZES })
  readonly #knownSizes: KnownSizes
  readonly #received: (bytes: number) => void

  constructor(deps: UpstreamDeps, plan: RegistryPlan) {
    const { clock } = deps
    const metrics = createUpstreamMetrics(deps.metrics)
    const base = new URL(plan.base)
    const log = deps.log.child({ origin: plan.name })
    const transport = new Transport({ clock, metrics }, { ...plan, base })
    const tokens = new TokenClient({ clock, metrics, transport })
    const authorizer = new Authorizer({ clock, log, tokens }, { base, credential: plan.credential })
    const redirects = new RedirectMemory({ clock })
    this.name = `registry:${plan.name}`
    this.#transport = transport
    this.#client = new RegistryClient({ log, clock, metrics, transport, authorizer, redirects }, { ...plan, base })
    this.#knownSizes = {
      get: key => this.#sizes.get(sizeKey(key)),
      forget: key => this.#sizes.delete(sizeKey(key)),
    }
    this.#received = bytes => metrics.bytes.inc(bytes)
  }

  /** Throws ERR_CONFIG_INVALID. */
  static async open(deps: UpstreamDeps, options: RegistryOriginOptions): Promise<RegistryOrigin> {
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

function sizeKey({ digest, repository }: BlobKey): string {
  return `${repository}@${digest}`
}

function ownCredential({ password, username }: RegistryOptions): Credential | undefined {
  const isSet = username !== undefined && username !== '' && password !== undefined && password !== ''
  return isSet ? { username, password } : undefined
}

/**
 * A login was given for a host. That images call another one by its name is the operator's business, and no reason to send it there: a
 * mirror of Docker Hub in the next room, spoken to in clear, is not Docker Hub.
 */
function credentialFrom(keychain: Keychain, name: string, base: URL): Credential | undefined {
  const known = normaliseRegistry(base.host)
  if (known === undefined || !Object.hasOwn(DEFAULT_REGISTRIES, known)) return keychain.get(base.host)
  if (base.protocol !== 'https:') return undefined
  return keychain.get(base.host) ?? (known === name ? keychain.get(name) : undefined)
}

/** The message names the key, never the value: it may hold a password. */
function baseOf(name: string, host: string): URL {
  const refuse = (why: string): ShoalError => new ShoalError('ERR_CONFIG_INVALID', `registries."${name}".host ${why}`)
  if (!URL.canParse(host)) throw refuse('is not a URL such as https://registry.example')
  const url = new URL(host)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw refuse('must begin with https:// or http://')
  if (url.username !== '' || url.password !== '')
    throw refuse('must not hold a credential; use username and password_file')
  if (url.search !== '' || url.hash !== '') throw refuse('must not have a query or a fragment')
  const prefix = url.pathname.replace(/\/+$/, '')
  url.pathname = prefix.endsWith('/v2') ? `${prefix}/` : `${prefix}/v2/`
  return url
}
