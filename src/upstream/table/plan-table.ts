import { createHash } from 'node:crypto'
import { describeError, normaliseRegistry, ShoalError, type Logger } from '../../core/index.ts'
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

type LastHost = Pick<MirrorOptions, 'host' | 'tls' | 'headers' | 'overridePath' | 'connectTimeoutMs'>

interface Arranged {
  /** Asked last, so that it has the last word. */
  readonly last: LastHost
  readonly before: readonly MirrorOptions[]
}

const PLAIN: Omit<LastHost, 'host'> = { tls: PUBLIC_TLS, headers: {}, overridePath: false }
/** By no hosts.toml. */
const NOTHING_SAID: HostsEntry = { kind: 'ok', file: '', mirrors: [] }
const NOBODY_ELSE: Arranged = { last: { ...PLAIN, host: NOWHERE }, before: [] }

export interface TablePlan {
  readonly named: ReadonlyMap<string, EntryPlan>
  /** The entry of a name that is not among `named`. Undefined: there is none. */
  readonly other: (name: string) => ReadyPlan | undefined
  /** Whether `*` answers for every name. */
  readonly hasAny: boolean
  /** What `_default` of certs.d says, or said last. */
  readonly defaults: HostsEntry | undefined
}

export interface TablePlanDeps extends UpstreamDeps {
  readonly keychain: Keychain
  /** Equal for keychains that hold the same. */
  readonly keychainId: string
}

/**
 * Decides what each name stands for: shoal.toml before certs.d before the public registries, which are there unless `*` is. Throws
 * ERR_CONFIG_INVALID. `lastDefaults`: of the plan before, for a `_default` that cannot be used any longer.
 */
export async function planTable(
  deps: TablePlanDeps,
  options: OriginTableOptions,
  lastDefaults: HostsEntry | undefined,
): Promise<TablePlan> {
  const hosts = await hostsOf(deps.log, options)
  const defaults = defaultsOf(deps.log, hosts.get(DEFAULT_HOST), lastDefaults)
  const named = new Map<string, EntryPlan>()
  const registries = configuredRegistries(options)
  for (const name of registries.has(ANY) ? [] : Object.keys(DEFAULT_REGISTRIES)) {
    const entry = defaults?.kind === 'ok' ? defaults : NOTHING_SAID
    if (!registries.has(name) && !hosts.has(name)) named.set(name, await planHosts(deps, name, entry, options))
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
    other: await planOthers(deps, any, defaults, options),
    hasAny: any !== undefined,
    defaults,
  }
}

function hostsOf(log: Logger, { certsD }: OriginTableOptions): Promise<ReadonlyMap<string, HostsEntry>> {
  if (certsD === '') return Promise.resolve(new Map())
  return readHosts({ log }, { root: certsD }).then(({ hosts }) => hosts)
}

/** It stands for so many that nobody would see it in the log of one of them. */
function defaultsOf(log: Logger, found: HostsEntry | undefined, last: HostsEntry | undefined): HostsEntry | undefined {
  if (found?.kind !== 'broken') return found
  log.error({ registry: DEFAULT_HOST, cause: describeError(found.error) }, 'hosts.toml not used')
  return last?.kind === 'ok' ? last : found
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
  // As containerd: whoever is not the registry itself is told which one is meant.
  const namespaced = normaliseRegistry(new URL(last.host).host) !== name
  const plan = await planRegistryEntry(name, registryAt(last, before), connectionOf(options), { ...last, namespaced })
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
    const isAnywhere = last.host === NOWHERE
    const more = { ...last, namespaced: !isAnywhere }
    const plan = await planRegistryEntry(ANY, registryAt(last, before), connection, more)
    if (isAnywhere) return name => planAnywhere(deps, plan, name, addresses)
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
  // Some names are no host of a URL: 256.0.0.1, xn--a.
  if (!URL.canParse(base) || isRefusedLiteral(new URL(base).hostname, addresses)) return undefined
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
