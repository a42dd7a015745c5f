import type { Keychain } from '../auth/index.ts'
import { Mirror, MirroredOrigin, ProxyRoute, watchedRegistry, type Ping } from '../mirrors/index.ts'
import type { AddressFilter } from '../net/addresses.ts'
import { ownHostTls } from '../net/tls.ts'
import type { ConnectionOptions, MirrorOptions, ProxyOptions, RegistryOptions, UpstreamDeps } from '../options.ts'
import { planRegistry, RegistryOrigin, type RegistryDeps, type RegistryPlan } from '../registry/registry-origin.ts'
import { lendRights } from '../registry/rights.ts'
import type { Entry } from './entry.ts'

/** A mirror whose request fails is not worth a second attempt: the next source is. */
const MIRROR_RETRIES = 0

interface MirrorPlan {
  readonly registry: RegistryPlan
  readonly options: MirrorOptions
}

/** Everything that one registry's entry is made from, files read. Plain data. */
export interface RegistryEntryPlan {
  readonly registry: RegistryPlan
  readonly mirrors: readonly MirrorPlan[]
  readonly proxy?: ProxyOptions
}

/** What is said of the registry itself, besides its options. */
interface RegistryEntryDetails extends Partial<Pick<MirrorOptions, 'overridePath' | 'headers' | 'connectTimeoutMs'>> {
  /** It serves several names, told apart by `ns`. */
  readonly namespaced?: boolean
}

/** Checks the options and reads their files. Throws ERR_CONFIG_INVALID. */
export async function planRegistryEntry(
  name: string,
  options: RegistryOptions,
  connection: ConnectionOptions,
  more: RegistryEntryDetails = {},
): Promise<RegistryEntryPlan> {
  const { mirrors, proxy, ...registry } = options
  const {
    connectTimeoutMs = connection.connectTimeoutMs,
    headers = {},
    namespaced = false,
    overridePath = false,
  } = more
  const own = { ...registry, ...connection, connectTimeoutMs, name, headers, overridePath }
  return {
    registry: await planRegistry(namespaced ? { ...own, namespace: name } : own),
    mirrors: await Promise.all(mirrors.map(mirror => planMirror(name, mirror, options, connection))),
    ...(proxy === undefined ? {} : { proxy }),
  }
}

async function planMirror(
  name: string,
  options: MirrorOptions,
  { visibility }: RegistryOptions,
  connection: ConnectionOptions,
): Promise<MirrorPlan> {
  const { connectTimeoutMs = connection.connectTimeoutMs, headers, host, overridePath, tls } = options
  const registry = await planRegistry({
    ...connection,
    connectTimeoutMs,
    retries: MIRROR_RETRIES,
    name,
    namespace: name,
    host,
    overridePath,
    headers,
    tls,
    visibility,
  })
  return { registry, options }
}

/** The plan of `*`, or of another template, for one of the names that it stands for. */
export function forName(plan: RegistryEntryPlan, name: string): RegistryEntryPlan {
  const named = (registry: RegistryPlan): RegistryPlan => ({
    ...registry,
    name,
    ...(registry.namespace === undefined ? {} : { namespace: name }),
  })
  return {
    ...plan,
    registry: named(plan.registry),
    mirrors: plan.mirrors.map(mirror => ({ ...mirror, registry: named(mirror.registry) })),
  }
}

export interface RegistryEntryDeps extends UpstreamDeps {
  readonly keychain: Keychain
  /** Which addresses the registry itself may have. Absent: all. */
  readonly addresses?: AddressFilter | undefined
}

/** Opens no connection yet. */
export function makeRegistryEntry(deps: RegistryEntryDeps, plan: RegistryEntryPlan): Entry {
  const { addresses } = deps
  const { name } = plan.registry
  const proxy = plan.proxy === undefined ? undefined : new ProxyRoute(deps, { registry: name, ...plan.proxy })
  const registry = new RegistryOrigin(
    {
      ...deps,
      ...(plan.proxy === undefined || proxy === undefined
        ? {}
        : {
            proxy: {
              url: new URL(plan.proxy.url),
              fallback: plan.proxy.fallback,
              useHttp: plan.proxy.useHttp,
              route: proxy,
            },
          }),
    },
    plan.registry,
  )
  const mirrors = plan.mirrors.map(mirror => makeMirror(deps, registry, mirror))
  const { base } = registry
  const watched = watchedRegistry(
    { ...deps, inner: registry, ping: pingOf(registry, { fallback: plan.proxy?.fallback === true }) },
    { host: base.host },
  )
  const origin = new MirroredOrigin(deps, { mirrors, origin: watched })
  return {
    origin,
    sources: origin.sources,
    visibility: plan.registry.visibility,
    target: { base, tls: ownHostTls(plan.registry.tls), addresses },
    state: () => ({
      name,
      host: base.host,
      mirrors: origin.states(),
      ...(proxy === undefined ? {} : { proxy: proxy.state() }),
    }),
    distrust: (digest, sources) => origin.distrust(digest, sources),
    close: async () => {
      await Promise.all([origin.close(), proxy?.close()])
    },
  }
}

function makeMirror(deps: RegistryEntryDeps, owner: RegistryOrigin, { options, registry }: MirrorPlan): Mirror {
  // Where each caller has to prove its right, it is the registry that it proves it to: a mirror may check nothing.
  const decides = options.authThrough && registry.visibility !== 'private'
  const mirrorDeps: RegistryDeps = {
    ...deps,
    // It was written down by the operator, wherever it is.
    addresses: undefined,
    kind: 'mirror',
    alsoTrusted: owner.trust,
    ...(decides ? {} : { rights: lendRights(owner.rights) }),
  }
  const inner = new RegistryOrigin(mirrorDeps, registry)
  const { base } = inner
  const url = options.pingUrl === undefined ? pingUrlOf(base) : new URL(options.pingUrl)
  const { capabilities, failureLimit, healthCheckIntervalMs, healthCheckPauseElapsedMs } = options
  return new Mirror(
    { ...deps, inner, ping: ({ signal }) => inner.ping(url, { signal }) },
    {
      name: `mirror:${base.host}`,
      registry: registry.name,
      host: base.host,
      capabilities,
      health: {
        failureLimit,
        healthCheckIntervalMs,
        healthCheckPauseElapsedMs,
        connectTimeoutMs: registry.connectTimeoutMs,
      },
    },
  )
}

function pingUrlOf(base: URL): URL {
  return new URL(base.href.replace(/\/$/, ''))
}

/**
 * Goes the way that requests go. Those that a proxy fails may be sent directly (`fallback`) once it has been given up, so that either way
 * is a sign of life: a proxy that hangs does not make the registry one that does.
 */
function pingOf(registry: RegistryOrigin, { fallback }: { readonly fallback: boolean }): Ping {
  const url = pingUrlOf(registry.base)
  if (!fallback) return options => registry.ping(url, options)
  return async ({ signal }) => {
    const over = new AbortController()
    const either = { signal: AbortSignal.any([signal, over.signal]) }
    try {
      return await Promise.any([registry.ping(url, either), registry.ping(url, { ...either, direct: true })])
    } finally {
      over.abort()
    }
  }
}
