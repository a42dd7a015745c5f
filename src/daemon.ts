import path from 'node:path'
import type { Registry } from 'prom-client'
import { BlobReader, ManifestReader, type Sources } from './blobs/index.ts'
import type { Config } from './config/index.ts'
import { Scope, systemClock, type Logger } from './core/index.ts'
import { Listener, Mirror, createHttpMetrics, openAdminApp, openHealthApp, type Address } from './http/index.ts'
import { Health, createMetrics } from './observability/index.ts'
import { ChunkStore } from './store/index.ts'
import { OriginTable, type OriginTableOptions } from './upstream/index.ts'

const ADMIN_SOCKET_MODE = 0o600

export interface DaemonDeps {
  readonly log: Logger
  /** Milliseconds since the process began until now; for the log line that says how long the start took. */
  readonly uptimeMs: () => number
}

interface Parts {
  readonly scope: Scope
  readonly origins: OriginTable
  readonly listeners: readonly Listener[]
  readonly health: Health
  readonly drainTimeoutMs: number
}

/** The composition root: opens every room in order, and closes them in reverse. */
export class Daemon implements AsyncDisposable {
  readonly #scope: Scope
  readonly #origins: OriginTable
  readonly #listeners: readonly Listener[]
  readonly #health: Health
  readonly #drainTimeoutMs: number
  #closing: Promise<void> | undefined

  private constructor(parts: Parts) {
    this.#scope = parts.scope
    this.#origins = parts.origins
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

  /** Takes over what can change while running: registries, origins and credentials. */
  async reload(config: Config): Promise<void> {
    await this.#origins.reload(originTableOptions(config))
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
  const origins = scope.use(
    await OriginTable.open(
      { log: log.child({ room: 'upstream' }), clock: systemClock, metrics },
      originTableOptions(config),
    ),
  )
  const sources = sourcesOf(origins)
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
  const mirror = new Mirror(
    {
      reader,
      manifests,
      sources,
      metrics: createHttpMetrics(metrics, () => listeners.reduce((sum, listener) => sum + listener.connections, 0)),
      log: httpLog,
    },
    { defaultRegistry: config.mirror.defaultRegistry, accessLog: config.log.access },
  )
  const healthApp = scope.use(await openHealthApp({ health, metrics, log: httpLog }))
  const status = (): object => ({
    daemon: true,
    pid: process.pid,
    uptimeSeconds: Math.round(process.uptime()),
    registries: origins.names(),
  })
  const adminApp = scope.use(await openAdminApp({ cache: store, status, log: httpLog }))

  const open = async (
    listener: string,
    handler: Mirror['handle'],
    address: Address,
    mode?: number,
  ): Promise<Listener> => {
    const opened = scope.use(await Listener.open(handler, mode === undefined ? { address } : { address, mode }))
    log.info({ listener, address: opened.address }, 'listening')
    return opened
  }
  await open('admin', adminApp.handler, { kind: 'unix', path: adminSocket(config) }, ADMIN_SOCKET_MODE)
  for (const address of config.admin.listen) await open('admin', adminApp.handler, address)
  for (const address of config.health.listen) await open('health', healthApp.handler, address)
  for (const address of config.mirror.listen) listeners.push(await open('mirror', mirror.handle, address))
  health.set('mirror', true)
  log.info({ startMs: Math.round(deps.uptimeMs()), state: config.state.path }, 'ready')
  return finish({ scope, origins, listeners, health, drainTimeoutMs: config.mirror.drainTimeoutMs })
}

/**
 * The store and its admin API without the daemon, for maintenance while no daemon runs. Rejects with ERR_STORE_LOCKED when one does.
 */
export async function openMaintenance(deps: { log: Logger }, config: Config): Promise<Scope> {
  const scope = new Scope()
  try {
    const store = scope.use(await openStore({ log: deps.log, metrics: createMetrics() }, config))
    const app = scope.use(
      await openAdminApp({ cache: store, status: () => ({ daemon: false, pid: process.pid }), log: deps.log }),
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

/** Today a blob has one source, its origin; mirrors and peers will stand before it in this list. */
function sourcesOf(origins: OriginTable): Sources {
  return {
    origin: registry => origins.get(registry),
    forBlob: key => {
      const origin = origins.get(key.registry)
      return origin === undefined ? [] : [origin]
    },
  }
}

function originTableOptions(config: Config): OriginTableOptions {
  const { connectTimeoutMs, idleTimeoutMs, retries, maxConnections, dockerConfig } = config.upstream
  return {
    connectTimeoutMs,
    idleTimeoutMs,
    retries,
    maxConnections,
    dockerConfig,
    registries: config.registries,
    origins: config.origins,
  }
}
