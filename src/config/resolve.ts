import os from 'node:os'
import path from 'node:path'
import { normaliseRegistry, mergeTrees, newTree, treeOf, type KeyPath, type Tree } from '../core/index.ts'
import { parseListenAddress } from './address.ts'
import type { Config, RegistryConfig, TlsConfig } from './config.ts'
import { ENV_SECRET } from './files.ts'
import { ANY_REGISTRY } from './relations.ts'
import { ConfigSchema, kindOf, type RawConfig, type RawRegistry } from './schema.ts'
import { parseDuration, parseSize } from './units.ts'
import { stringsOf } from './validate.ts'

/** Registries that do not answer under the name that images use. */
const REAL_HOSTS: Readonly<Record<string, string>> = { 'docker.io': 'https://registry-1.docker.io' }

const ROOT_STATE_PATH = '/var/lib/shoal'

/** Where the state is kept unless configured: for root the system's place, for others the XDG base directory specification's. */
export function defaultStatePath(env: NodeJS.ProcessEnv, isRoot: boolean): string {
  if (isRoot) return ROOT_STATE_PATH
  const xdg = env['XDG_STATE_HOME'] ?? ''
  // The specification has relative paths ignored.
  return path.join(path.isAbsolute(xdg) ? xdg : path.join(env['HOME'] ?? os.homedir(), '.local', 'state'), 'shoal')
}

/** A registry's host unless configured. */
export function defaultHost(name: string): string {
  const normal = normaliseRegistry(name) ?? name
  return REAL_HOSTS[normal] ?? `https://${normal}`
}

export interface CompleteContext {
  /** The absolute path that the value of a key means. */
  readonly resolvePath: (path: KeyPath, value: string) => string
  /** What state.path is unless configured. */
  readonly statePath: string
}

/** `raw` with what depends on circumstances filled in: state.path, the registries' hosts, and every path absolute. */
export function completeConfig(raw: RawConfig, { resolvePath, statePath }: CompleteContext): RawConfig {
  let tree: Tree = mergeTrees(treeOf(['state', 'path'], statePath), newTree(Object.entries(raw)))
  for (const [name, entry] of Object.entries(raw.registries)) {
    if (entry.host === undefined && name !== ANY_REGISTRY)
      tree = mergeTrees(tree, treeOf(['registries', name, 'host'], defaultHost(name)))
  }
  for (const [path, schema, value] of stringsOf(ConfigSchema, raw, [])) {
    const kind = kindOf(schema)
    if (value === '' || (kind !== 'path' && kind !== 'secret-path')) continue
    if (kind === 'secret-path' && value.startsWith(ENV_SECRET)) continue
    tree = mergeTrees(tree, treeOf(path, resolvePath(path, value)))
  }
  return tree as RawConfig
}

/** The internal form of a complete configuration in which nothing is wrong. `passwords` are by the registry's name as written. */
export function resolveConfig(raw: RawConfig, passwords: ReadonlyMap<string, string>): Config {
  const { mirror, health, admin, state, store, manifests, upstream, registries, origins, log } = raw
  return deepFreeze({
    mirror: {
      listen: mirror.listen.flatMap(toAddress),
      defaultRegistry: toName(mirror.default_registry),
      drainTimeoutMs: toMs(mirror.drain_timeout),
    },
    health: { listen: health.listen.flatMap(toAddress) },
    admin: { listen: admin.listen.flatMap(toAddress) },
    state: { path: state.path ?? '' },
    store: {
      maxBytes: toBytes(store.max_bytes),
      minFreeBytes: toBytes(store.min_free_bytes),
      memoryBytes: toBytes(store.memory_bytes),
    },
    manifests: { tagTtlMs: toMs(manifests.tag_ttl), serveStale: manifests.serve_stale },
    upstream: {
      connectTimeoutMs: toMs(upstream.connect_timeout),
      idleTimeoutMs: toMs(upstream.idle_timeout),
      retries: upstream.retries,
      maxConnections: upstream.max_connections,
      dockerConfig: upstream.docker_config,
    },
    registries: Object.fromEntries(
      Object.entries(registries).map(([name, entry]) => [toName(name), toRegistry(entry, passwords.get(name))]),
    ),
    origins: Object.fromEntries(
      Object.entries(origins).map(([name, entry]) => [toName(name), { type: entry.type, path: entry.path }]),
    ),
    log: { level: log.level, access: log.access },
  })
}

function toRegistry(entry: RawRegistry, password: string | undefined): RegistryConfig {
  const { ca, cert, key, skip_verify: skipVerify, server_name: serverName } = entry.tls
  const tls: TlsConfig = {
    ...(ca === '' ? {} : { ca }),
    ...(cert === '' ? {} : { cert }),
    ...(key === '' ? {} : { key }),
    skipVerify,
    ...(serverName === '' ? {} : { serverName }),
  }
  return {
    host: (entry.host ?? '').replace(/\/+$/, ''),
    ...(entry.username === '' ? {} : { username: entry.username }),
    ...(password === undefined ? {} : { password }),
    tls,
  }
}

function toName(text: string): string {
  return text === ANY_REGISTRY ? text : (normaliseRegistry(text) ?? text)
}

/** Validation has been here before: nothing is dropped. */
function toAddress(text: string): NonNullable<ReturnType<typeof parseListenAddress>>[] {
  const address = parseListenAddress(text)
  return address === undefined ? [] : [address]
}

function toMs(text: string): number {
  return parseDuration(text) ?? 0
}

function toBytes(text: string): number {
  return parseSize(text) ?? 0
}

function deepFreeze<T extends object>(value: T): T {
  for (const child of Object.values(value) as unknown[])
    if (typeof child === 'object' && child !== null) deepFreeze(child)
  return Object.freeze(value)
}
