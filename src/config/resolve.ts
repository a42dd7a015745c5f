import { normaliseRegistry, parseDigest } from '../core/index.ts'
import { parseListenAddress, type ListenAddress } from './address.ts'
import type { BlobEndpoint, Config, ProxyRule } from './config.ts'
import type { SecretAt } from './files.ts'
import { ANY_REGISTRY } from './relations.ts'
import { toOrigin } from './resolve-origin.ts'
import { present, toMs } from './resolve-parts.ts'
import { toRegistry } from './resolve-registry.ts'
import type { RawBlobEndpoint, RawConfig, RawRule } from './schema.ts'
import { parseSize } from './units.ts'

/** Where nothing says in which repository the blobs are, and nothing depends on it. */
const ANY_REPOSITORY = 'blobs'

/** The internal form of a complete configuration in which nothing is wrong. `secretAt` tells what the files at the given keys hold. */
export function resolveConfig(raw: RawConfig, secretAt: SecretAt): Config {
  const { mirror, health, admin, state, store, manifests, log } = raw
  return deepFreeze({
    mirror: {
      listen: mirror.listen.flatMap(toAddress),
      defaultRegistry: toName(mirror.default_registry),
      drainTimeoutMs: toMs(mirror.drain_timeout),
      hosts: Object.fromEntries(Object.entries(mirror.hosts).map(([host, name]) => [host.toLowerCase(), toName(name)])),
      blobs: mirror.blobs.map(toBlobEndpoint),
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
    proxy: toProxy(raw.proxy, secretAt),
    upstream: toUpstream(raw.upstream),
    registries: Object.fromEntries(
      Object.entries(raw.registries).map(([name, entry]) => [
        toName(name),
        toRegistry(entry, secretAt(['registries', name, 'password_file'])),
      ]),
    ),
    origins: Object.fromEntries(
      Object.entries(raw.origins).map(([name, entry]) => [
        toName(name),
        toOrigin(entry, key => secretAt(['origins', name, key])),
      ]),
    ),
    log: { level: log.level, access: log.access },
  })
}

function toBlobEndpoint(raw: RawBlobEndpoint): BlobEndpoint {
  const common = { origin: toName(raw.origin), repository: raw.repository === '' ? ANY_REPOSITORY : raw.repository }
  return raw.socket === ''
    ? { prefix: raw.prefix, ...common }
    : { socket: raw.socket, ...common, digest: parseDigest(raw.digest) }
}

function toProxy(raw: RawConfig['proxy'], secretAt: SecretAt): Config['proxy'] {
  return {
    enabled: raw.enabled,
    intercept: raw.intercept.map(pattern => pattern.toLowerCase()),
    ...present('username', raw.username),
    ...present('password', secretAt(['proxy', 'password_file'])),
    rules: raw.rules.map(toRule),
  }
}

function toRule({ match, action, use_https: useHttps, redirect }: RawRule): ProxyRule {
  return { match, action, useHttps, ...present('redirect', redirect) }
}

function toUpstream(raw: RawConfig['upstream']): Config['upstream'] {
  return {
    allowAny: raw.allow_any,
    allowPrivate: raw.allow_private,
    certsD: raw.certs_d,
    connectTimeoutMs: toMs(raw.connect_timeout),
    idleTimeoutMs: toMs(raw.idle_timeout),
    retries: raw.retries,
    maxConnections: raw.max_connections,
    dockerConfig: raw.docker_config,
    credentialPlugins: raw.credential_plugins.map(({ config, bin_dir: binDir }) => ({ config, binDir })),
  }
}

function toName(text: string): string {
  return text === ANY_REGISTRY ? text : (normaliseRegistry(text) ?? text)
}

/** Validation has been here before: nothing is dropped. */
function toAddress(text: string): ListenAddress[] {
  const address = parseListenAddress(text)
  return address === undefined ? [] : [address]
}

function toBytes(text: string): number {
  return parseSize(text) ?? 0
}

function deepFreeze<T extends object>(value: T): T {
  for (const child of Object.values(value) as unknown[])
    if (typeof child === 'object' && child !== null) deepFreeze(child)
  return Object.freeze(value)
}
