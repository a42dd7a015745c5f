import { createHash } from 'node:crypto'
import { normaliseRegistry, ShoalError, type Logger } from '../../core/index.ts'
import type { Keychain } from '../auth/index.ts'
import { DEFAULT_REGISTRIES } from '../default-registries.ts'
import { DEFAULT_HOST, readHosts, type HostsEntry } from '../hosts/index.ts'
import { isRefusedLiteral, publicAddresses, type AddressFilter } from '../net/addresses.ts'
import { PUBLIC_TLS } from '../net/tls.ts'
import type { ConnectionOptions, MirrorOptions, OriginTableOptions, RegistryOptions, UpstreamDeps } from '../options.ts'
import { brokenEntry } from './broken-entry.ts'
import type { EntryPlan, ReadyPlan } from './entry.ts'
import { makeOriginEntry } from './origin-entry.ts'
import { forName, makeRegistryEntry, planRegistryEntry, type RegistryEntryPlan } from './registry-entry.ts'

/** The entry that answers for names without one. */
export const ANY = '*'
/** Stands, in the template for allow_any, for the address that a name is. */
const NOWHERE = 'https://registry.invalid'

type LastHost = Pick<MirrorOptions, 'host' | 'tls' | 'headers' | 'overridePath'>

interface Arranged {
  /** Asked last, so that it has the last word. */
  readonly last: LastHost
  readonly before: readonly MirrorOptions[]
}

const PLAIN: Omit<LastHost, 'host'> = { tls: PUBLIC_TLS, headers: {}, overridePath: false }
const NOBODY_ELSE: Arranged = { last: { ...PLAIN, host: NOWHERE }, before: [] }

export interface TablePlan {
  readonly named: ReadonlyMap<string, EntryPlan>
  /** The entry of a name that is not among `named`. Undefined: there is none. */
  readonly other: (name: string) => ReadyPlan | undefined
  /** Whether `*` answers for every name. */
  readonly hasAny: boolean
}

export interface TablePlanDeps extends UpstreamDeps {
  readonly keychain: Keychain
  /** Equal for keychains that hold the same. */
  readonly keychainId: string
}

/** Decides what each name stands for: shoal.toml before certs.d before the public registries. Throws ERR_CONFIG_INVALID. */
export async function planTable(deps: TablePlanDeps, options: OriginTableOptions): Promise<TablePlan> {
  const hosts = await hostsOf(deps.log, options)
  const named = new Map<string, EntryPlan>()
  const registries = configuredRegistries(options)
  for (const [name, registry] of Object.entries(publicRegistries(hosts.get(DEFAULT_HOST)))) {
    if (!registries.has(name) && !hosts.has(name)) named.set(name, await planNamed(deps, name, registry, options))
  }
  for (const [name, entry] of hosts) {
    if (name !== DEFAULT_HOST && !registries.has(name)) named.set(name, await planHosts(deps, name, entry, options))
  }
  for (const [name, registry] of registries) {
    if (name !== ANY) named.set(name, await planNamed(deps, name, registry, options))
  }
  for (const [key, origin] of Object.entries(options.origins)) {
    const name = nameOf('origins', key)
    if (named.has(name)) throw new ShoalError('ERR_CONFIG_INVALID', `"${name}" is both a registry and an origin`)
    named.set(name, {
      fingerprint: fingerprintOf(origin),
      make: () => makeOriginEntry(deps, name, origin, options),
    })
  }
  const any = registries.get(ANY)
  return {
    named,
    other: await planOthers(deps, any, hosts.get(DEFAULT_HOST), options),
    hasAny: any !== undefined,
  }
}

function hostsOf(log: Logger, { certsD }: OriginTableOptions): Promise<ReadonlyMap<string, HostsEntry>> {
  if (certsD === '') return Promise.resolve(new Map())
  return readHosts({ log }, { root: certsD }).then(({ hosts }) => hosts)
}

/** Those of the default table; mirrors of `_default` stand before each of them. */
function publicRegistries(defaults: HostsEntry | undefined): Record<string, RegistryOptions> {
  const mirrors = defaults?.kind === 'ok' ? defaults.mirrors : []
  return Object.fromEntries(
    Object.entries(DEFAULT_REGISTRIES).map(([name, host]) => [
      name,
      { host, tls: PUBLIC_TLS, visibility: 'auto', mirrors },
    ]),
  )
}

function configuredRegistries({ registries }: OriginTableOptions): Map<string, RegistryOptions> {
  const all = new Map<string, RegistryOptions>()
  for (const [key, registry] of Object.entries(registries)) {
    const name = key === ANY ? ANY : nameOf('registries', key)
    if (all.has(name))
      throw new ShoalError('ERR_CONFIG_INVALID', `registries has "${name}" twice, under different spellings`)
    all.set(name, registry)
  }
  return all
}

async function planNamed(
  deps: TablePlanDeps,
  name: string,
  registry: RegistryOptions,
  options: OriginTableOptions,
): Promise<EntryPlan> {
  return waiting(entryPlan(deps, await planRegistryEntry(name, registry, connectionOf(options)), undefined))
}

async function planHosts(
  deps: TablePlanDeps,
  name: string,
  entry: HostsEntry,
  options: OriginTableOptions,
): Promise<EntryPlan> {
  if (entry.kind === 'broken') return waiting(brokenPlan(name, entry.error))
  const own = DEFAULT_REGISTRIES[name] ?? `https://${name}`
  const { last, before } = arrange(entry, own) ?? { last: { ...PLAIN, host: own }, before: [] }
  const plan = await planRegistryEntry(name, registryAt(last, before), connectionOf(options), last)
  return waiting(entryPlan(deps, plan, undefined))
}

/** Undefined: nobody is named. */
function arrange(
  { mirrors, server }: HostsEntry & { readonly kind: 'ok' },
  own: string | undefined,
): Arranged | undefined {
  const host = server?.host ?? own
  const isForPulls = server === undefined || server.capabilities.length > 0
  if (host !== undefined && isForPulls) return { last: { ...(server ?? PLAIN), host }, before: mirrors }
  const last = mirrors.at(-1)
  return last === undefined ? undefined : { last, before: mirrors.slice(0, -1) }
}

function registryAt({ host, tls }: LastHost, mirrors: readonly MirrorOptions[]): RegistryOptions {
  return { host, tls, visibility: 'auto', mirrors }
}

/** `*` of shoal.toml before `_default` of certs.d before allow_any. */
async function planOthers(
  deps: TablePlanDeps,
  any: RegistryOptions | undefined,
  defaults: HostsEntry | undefined,
  options: OriginTableOptions,
): Promise<TablePlan['other']> {
  const connection = connectionOf(options)
  if (any !== undefined) {
    const plan = await planRegistryEntry(ANY, any, connection, { namespaced: true })
    return name => entryPlan(deps, forName(plan, name), undefined)
  }
  if (defaults?.kind === 'broken') return name => brokenPlan(name, defaults.error)
  if (options.allowAny) {
    const addresses = publicAddresses(options.allowPrivate)
    const { last, before } = (defaults === undefined ? undefined : arrange(defaults, NOWHERE)) ?? NOBODY_ELSE
    const plan = await planRegistryEntry(ANY, registryAt(last, before), connection, last)
    if (last.host === NOWHERE) return name => planAnywhere(deps, plan, name, addresses)
    return name => entryPlan(deps, forName(plan, name), undefined)
  }
  // The registry itself is none of our business: the last of those that `_default` names has the last word.
  const arranged = defaults === undefined ? undefined : arrange(defaults, undefined)
  if (arranged === undefined) return () => undefined
  const { last, before } = arranged
  const plan = await planRegistryEntry(ANY, registryAt(last, before), connection, { ...last, namespaced: true })
  return name => entryPlan(deps, forName(plan, name), undefined)
}

/** A registry at the address that its name is, if that address is anybody's business. */
function planAnywhere(
  deps: TablePlanDeps,
  template: RegistryEntryPlan,
  name: string,
  addresses: AddressFilter,
): ReadyPlan | undefined {
  const base = `https://${name}/v2/`
  const { hostname } = new URL(base)
  if (isRefusedLiteral(hostname, addresses)) return undefined
  const plan = forName(template, name)
  return entryPlan(deps, { ...plan, registry: { ...plan.registry, base } }, addresses)
}

function entryPlan(deps: TablePlanDeps, plan: RegistryEntryPlan, addresses: AddressFilter | undefined): ReadyPlan {
  return {
    fingerprint: fingerprintOf({ plan, keys: deps.keychainId }),
    make: () => makeRegistryEntry({ ...deps, addresses }, plan),
  }
}

function brokenPlan(name: string, error: ShoalError): ReadyPlan {
  return { fingerprint: fingerprintOf({ broken: error.message }), make: () => brokenEntry(name, error), broken: error }
}

function waiting(plan: ReadyPlan): EntryPlan {
  return { ...plan, make: () => Promise.resolve(plan.make()) }
}

function connectionOf({
  connectTimeoutMs,
  idleTimeoutMs,
  maxConnections,
  retries,
}: OriginTableOptions): ConnectionOptions {
  return { connectTimeoutMs, idleTimeoutMs, maxConnections, retries }
}

function nameOf(section: string, key: string): string {
  const name = normaliseRegistry(key)
  if (name === undefined) throw new ShoalError('ERR_CONFIG_INVALID', `${section}."${key}" is not a host name`)
  return name
}

/** A hash, so that no password is kept for comparing. */
function fingerprintOf(plan: object): string {
  return createHash('sha256').update(JSON.stringify(plan)).digest('hex')
}
