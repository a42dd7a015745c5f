import { randomBytes } from 'node:crypto'
import path from 'node:path'
import type { Registry } from 'prom-client'
import { BlobReader, ManifestReader, type Sources } from './blobs/index.ts'
import type { Config } from './config/index.ts'
import { Scope, systemClock, type Logger } from './core/index.ts'
import {
  BlobRoute,
  CertificateAuthority,
  ForwardProxy,
  Listener,
  Mirror,
  createHttpMetrics,
  createProxyMetrics,
  initProxyAuthority as initAuthority,
  openAdminApp,
  openHealthApp,
  readProxyAuthority as readAuthority,
  type AuthorityFacts,
  type ListenerOptions,
} from './http/index.ts'
import { Health, createMetrics } from './observability/index.ts'
import { ChunkStore } from './store/index.ts'
import { OriginTable, TableEgress, type OriginTableOptions, type RegistryState } from './upstream/index.ts'

const ADMIN_SOCKET_MODE = 0o600

export interface DaemonDeps {
  readonly log: Logger
  /** Milliseconds since the process began until now; for the log line that says how long the start took. */
  readonly uptimeMs: () => number
}

interface Parts {
  readonly scope: Scope
  readonly origins: OriginTable
  readonly egress: TableEgress
  readonly proxy: ForwardProxy | undefined
  readonly listeners: readonly Listener[]
  readonly health: Health
  readonly drainTimeoutMs: number
}

/** The composition root: opens every room in order, and closes them in reverse. */
export class Daemon implements AsyncDisposable {
  readonly #scope: Scope
  readonly #origins: OriginTable
  readonly #egress: TableEgress
  readonly #proxy: ForwardProxy | undefined
  readonly #listeners: readonly Listener[]
  readonly #health: Health
  readonly #drainTimeoutMs: number
  #closing: Promise<void> | undefined

  private constructor(parts: Parts) {
    this.#scope = parts.scope
    this.#origins = parts.origins
    this.#egress = parts.egress
    this.#proxy = parts.proxy
    this.#listeners = parts.listeners
    this.#health = parts.health
    this.#drainTimeoutMs = parts.drainTimeoutMs
  }

  /** Rejects, with everything closed again, when a room cannot be opened. */
  static async open(deps: DaemonDeps, config: Config): Promise<Daemon> {
    const scope = new Scope()
    try {
      return await openRooms(deps, config, scope, parts => new Daemon(parts))
    } catch (error: unknown) {
      await scope.close()
      throw error
    }
  }

  /** Takes over what can change while running: registries, origins, credentials, and the rules and the login of the forward proxy. */
  async reload(config: Config): Promise<void> {
    await this.#origins.reload(originTableOptions(config))
    this.#egress.reload(config.upstream)
    this.#proxy?.setRules(config.proxy.rules)
    this.#proxy?.setLogin(config.proxy)
  }

  /** Lets requests under way finish, within the configured time, then closes every room. Repeatable. */
  close(): Promise<void> {
    this.#closing ??= this.#drain()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #drain(): Promise<void> {
    this.#health.set('mirror', false, 'draining')
    await Promise.all(this.#listeners.map(listener => listener.close(this.#drainTimeoutMs)))
    await this.#scope.close()
  }
}

async function openRooms(
  deps: DaemonDeps,
  config: Config,
  scope: Scope,
  finish: (parts: Parts) => Daemon,
): Promise<Daemon> {
  const { log } = deps
  const metrics = createMetrics()
  const health = new Health()
  const store = scope.use(await openStore({ log, metrics }, config))
  const via = `1.1 shoal-${randomBytes(8).toString('hex')}`
  const origins = scope.use(
    await OriginTable.open(
      { log: log.child({ room: 'upstream' }), clock: systemClock, metrics, via },
      originTableOptions(config),
    ),
  )
  const sources: Sources = {
    origin: name => origins.get(name),
    forBlob: key => origins.sources(key.registry),
    policy: name => origins.policy(name),
  }
  scope.defer(store.onQuarantine(({ digest, sources: names }) => origins.distrust(digest, names)))
  const reader = scope.use(
    new BlobReader({ store, sources, log: log.child({ room: 'blobs' }), clock: systemClock, metrics }),
  )
  const manifests = new ManifestReader(
    {
      store,
      access: reader.access,
      sources,
      metrics: reader.metrics,
      log: log.child({ room: 'blobs' }),
      clock: systemClock,
    },
    { tagTtlMs: config.manifests.tagTtlMs, serveStale: config.manifests.serveStale },
  )

  const listeners: Listener[] = []
  const httpLog = log.child({ room: 'http' })
  const httpMetrics = createHttpMetrics(metrics, () => listeners.reduce((sum, { connections }) => sum + connections, 0))
  const blobs = new BlobRoute({ reader, metrics: httpMetrics, log: httpLog })
  const egress = scope.use(new TableEgress({ table: origins, log: log.child({ room: 'upstream' }) }, config.upstream))
  const proxyDeps = { log, metrics, origins, egress, blobs, scope, via }
  const proxy = config.proxy.enabled ? await openProxy(proxyDeps, config) : undefined
  const mirror = new Mirror(
    { blobs, manifests, sources, proxy, metrics: httpMetrics, log: httpLog },
    {
      defaultRegistry: config.mirror.defaultRegistry,
      hosts: config.mirror.hosts,
      blobs: config.mirror.blobs,
      accessLog: config.log.access,
      via,
    },
  )
  const healthApp = scope.use(await openHealthApp({ health, metrics, log: httpLog }))
  const status = (): object => ({
    daemon: true,
    pid: process.pid,
    uptimeSeconds: Math.round(process.uptime()),
    registries: origins.names(),
  })
  const mirrors = (): { registries: RegistryState[] } => ({ registries: origins.registries() })
  const adminApp = scope.use(await openAdminApp({ cache: store, status, mirrors, log: httpLog }))

  const open = async (name: string, handler: Mirror['handle'], options: ListenerOptions): Promise<Listener> => {
    const opened = scope.use(await Listener.open(handler, options))
    log.info({ listener: name, address: opened.address }, 'listening')
    return opened
  }
  const adminAddress = { kind: 'unix', path: adminSocket(config) } as const
  await open('admin', adminApp.handler, { address: adminAddress, mode: ADMIN_SOCKET_MODE })
  for (const address of config.admin.listen) await open('admin', adminApp.handler, { address })
  for (const address of config.health.listen) await open('health', healthApp.handler, { address })
  for (const endpoint of config.mirror.blobs) {
    if (!('socket' in endpoint)) continue
    const address = { kind: 'unix', path: endpoint.socket } as const
    listeners.push(await open('blob', mirror.handlerFor(endpoint), { address }))
  }
  const tunnels = proxy === undefined ? {} : { onConnect: proxy.connect }
  for (const address of config.mirror.listen)
    listeners.push(await open('mirror', mirror.handle, { address, ...tunnels }))
  health.set('mirror', true)
  log.info({ startMs: Math.round(deps.uptimeMs()), state: config.state.path }, 'ready')
  return finish({ scope, origins, egress, proxy, listeners, health, drainTimeoutMs: config.mirror.drainTimeoutMs })
}

interface ProxyParts {
  readonly log: Logger
  readonly metrics: Registry
  readonly origins: OriginTable
  readonly egress: TableEgress
  readonly blobs: BlobRoute
  readonly scope: Scope
  readonly via: string
}

/** The forward proxy, with the way out that the table of origins leaves it. */
async function openProxy(
  { log, metrics, origins, egress, blobs, scope, via }: ProxyParts,
  config: Config,
): Promise<ForwardProxy> {
  const { intercept } = config.proxy
  const authority =
    intercept.length === 0
      ? undefined
      : await CertificateAuthority.open({ clock: systemClock }, { directory: proxyAuthorityPath(config) })
  const proxy: ForwardProxy = new ForwardProxy(
    {
      egress,
      isRegistry: name => origins.get(name) !== undefined,
      serveBlob: (request, response, named, signal) => blobs.serve(request, response, named, signal),
      serveNow: (request, response, asked) => blobs.serveNow(request, response, asked),
      ...(authority === undefined ? {} : { authority }),
      metrics: createProxyMetrics(metrics, () => proxy.tunnels),
      log: log.child({ room: 'http' }),
    },
    { ...config.proxy, via, accessLog: config.log.access },
  )
  return scope.use(proxy)
}

/**
 * The store and its admin API without the daemon, for maintenance while no daemon runs. Rejects with ERR_STORE_LOCKED when one does.
 */
export async function openMaintenance(deps: { log: Logger }, config: Config): Promise<Scope> {
  const scope = new Scope()
  try {
    const store = scope.use(await openStore({ log: deps.log, metrics: createMetrics() }, config))
    const app = scope.use(
      await openAdminApp({
        cache: store,
        status: () => ({ daemon: false, pid: process.pid }),
        mirrors: () => ({ registries: [] }),
        log: deps.log,
      }),
    )
    const address = { kind: 'unix', path: adminSocket(config) } as const
    scope.use(await Listener.open(app.handler, { address, mode: ADMIN_SOCKET_MODE }))
    return scope
  } catch (error: unknown) {
    await scope.close()
    throw error
  }
}

/** Where the admin API of the daemon with this configuration listens. */
export function adminSocket(config: Config): string {
  return path.join(config.state.path, 'admin.sock')
}

function openStore(deps: { log: Logger; metrics: Registry }, config: Config): Promise<ChunkStore> {
  const { maxBytes, minFreeBytes, memoryBytes } = config.store
  return ChunkStore.open(
    { ...deps, clock: systemClock },
    { path: config.state.path, maxBytes, minFreeBytes, memoryBytes },
  )
}

/** Makes the authority whose certificates the forward proxy shows inside intercepted tunnels. Throws ERR_CONFIG_INVALID when there is one. */
export function initProxyAuthority(config: Config, options: { force?: boolean } = {}): Promise<AuthorityFacts> {
  return initAuthority({ clock: systemClock }, { directory: proxyAuthorityPath(config), ...options })
}

/** Throws ERR_CONFIG_INVALID when there is none. */
export function readProxyAuthority(config: Config): Promise<AuthorityFacts> {
  return readAuthority({ directory: proxyAuthorityPath(config) })
}

function proxyAuthorityPath(config: Config): string {
  return path.join(config.state.path, 'proxy-ca')
}

function originTableOptions({ origins, registries, upstream }: Config): OriginTableOptions {
  return { ...upstream, registries, origins }
}
