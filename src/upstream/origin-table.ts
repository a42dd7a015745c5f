import { createHash } from 'node:crypto'
import { describeError, normaliseRegistry, ShoalError, type Logger, type Origin } from '../core/index.ts'
import { DEFAULT_REGISTRIES } from './default-registries.ts'
import { readDockerConfig, type Keychain } from './auth/keychain.ts'
import { OciLayoutOrigin } from './local/oci-layout.ts'
import type { OriginTableOptions, RegistryOptions, UpstreamDeps } from './options.ts'
import { planRegistry, RegistryOrigin } from './registry/registry-origin.ts'

/** The entry that answers for names without one. */
const ANY = '*'
/** Whoever took an origin from the table before a reload may go on asking it for this long. */
const RETIRE_MS = 30_000

type ClosableOrigin = Origin & { close(): Promise<void> }

interface Entry {
  readonly origin: ClosableOrigin
  /** Equal for entries that were made from the same options and the same files. */
  readonly fingerprint: string
}

interface Plan {
  readonly fingerprint: string
  readonly make: () => Promise<ClosableOrigin>
}

/** The closed world of origins: what a request names is a key of this table, never an address. */
export class OriginTable implements AsyncDisposable {
  readonly #deps: UpstreamDeps
  readonly #log: Logger
  readonly #closing = new AbortController()
  readonly #retired = new Set<Promise<void>>()
  #entries: ReadonlyMap<string, Entry> = new Map()
  #reloads: Promise<void> = Promise.resolve()

  private constructor(deps: UpstreamDeps) {
    this.#deps = deps
    this.#log = deps.log
  }

  /** Throws ERR_CONFIG_INVALID. Asks nothing of the network. */
  static async open(deps: UpstreamDeps, options: OriginTableOptions): Promise<OriginTable> {
    const table = new OriginTable(deps)
    await table.reload(options)
    return table
  }

  /** `name`: normalised, as normaliseRegistry makes it. Undefined: not in the table. Throws ERR_CLOSED. */
  get(name: string): Origin | undefined {
    this.#checkOpen()
    if (name === ANY) return undefined
    return (this.#entries.get(name) ?? this.#entries.get(ANY))?.origin
  }

  /** Sorted; `*` among them when it is configured. */
  names(): string[] {
    return [...this.#entries.keys()].sort()
  }

  /**
   * Replaces the table. Entries that have not changed keep their connections and tokens; the others are closed once they have been out of
   * the table for a while and are idle. When anything is wrong with `options` it throws ERR_CONFIG_INVALID and the table stays as it was.
   */
  reload(options: OriginTableOptions): Promise<void> {
    const reload = this.#reloads.then(() => this.#replace(options))
    this.#reloads = reload.catch(() => undefined)
    return reload
  }

  /** Refuses new work and waits for bodies that are being read. May be called again. */
  async close(): Promise<void> {
    this.#closing.abort(new ShoalError('ERR_CLOSED', 'the origin table is closed'))
    await this.#reloads
    await Promise.all([...this.#entries.values()].map(({ origin }) => origin.close()))
    await Promise.all(this.#retired)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #replace(options: OriginTableOptions): Promise<void> {
    this.#checkOpen()
    const plans = await this.#plan(options)
    const made: ClosableOrigin[] = []
    const next = new Map<string, Entry>()
    try {
      for (const [name, { fingerprint, make }] of plans) {
        const old = this.#entries.get(name)
        if (old?.fingerprint === fingerprint) {
          next.set(name, old)
        } else {
          const origin = await make()
          made.push(origin)
          next.set(name, { origin, fingerprint })
        }
      }
      this.#checkOpen()
    } catch (error: unknown) {
      await Promise.all(made.map(origin => origin.close()))
      throw error
    }
    for (const [name, entry] of this.#entries) if (next.get(name) !== entry) this.#retire(entry.origin)
    this.#entries = next
  }

  async #plan(options: OriginTableOptions): Promise<Map<string, Plan>> {
    const keychain = await readDockerConfig({ log: this.#log }, { file: options.dockerConfig })
    const plans = new Map<string, Plan>()
    for (const [name, registry] of registriesOf(options)) {
      plans.set(name, await this.#planRegistry(name, registry, keychain, options))
    }
    for (const [key, { path, type }] of Object.entries(options.origins)) {
      const name = nameOf('origins', key)
      if (plans.has(name)) throw new ShoalError('ERR_CONFIG_INVALID', `"${name}" is both a registry and an origin`)
      const make = (): Promise<ClosableOrigin> => OciLayoutOrigin.open(this.#deps, { name, path })
      plans.set(name, { fingerprint: fingerprintOf({ type, path }), make })
    }
    return plans
  }

  async #planRegistry(
    name: string,
    registry: RegistryOptions,
    keychain: Keychain,
    { connectTimeoutMs, idleTimeoutMs, maxConnections, retries }: OriginTableOptions,
  ): Promise<Plan> {
    const connection = { connectTimeoutMs, idleTimeoutMs, maxConnections, retries }
    const plan = await planRegistry({ ...registry, ...connection, name, keychain })
    const deps = { ...this.#deps, log: this.#log }
    return { fingerprint: fingerprintOf(plan), make: () => Promise.resolve(new RegistryOrigin(deps, plan)) }
  }

  #retire(origin: ClosableOrigin): void {
    const retired = this.#closeLater(origin).finally(() => this.#retired.delete(retired))
    this.#retired.add(retired)
  }

  async #closeLater(origin: ClosableOrigin): Promise<void> {
    try {
      await this.#deps.clock.sleep(RETIRE_MS, { signal: this.#closing.signal })
    } catch {
      // The table is being closed, and this origin with it.
    }
    try {
      await origin.close()
    } catch (error: unknown) {
      this.#log.warn({ origin: origin.name, cause: describeError(error) }, 'origin not closed cleanly')
    }
  }

  #checkOpen(): void {
    if (this.#closing.signal.aborted) throw this.#closing.signal.reason
  }
}

function registriesOf({ registries }: OriginTableOptions): Map<string, RegistryOptions> {
  const all = new Map<string, RegistryOptions>()
  for (const [name, host] of Object.entries(DEFAULT_REGISTRIES)) all.set(name, { host, tls: { skipVerify: false } })
  const seen = new Set<string>()
  for (const [key, registry] of Object.entries(registries)) {
    const name = key === ANY ? ANY : nameOf('registries', key)
    if (seen.has(name))
      throw new ShoalError('ERR_CONFIG_INVALID', `registries has "${name}" twice, under different spellings`)
    seen.add(name)
    all.set(name, registry)
  }
  return all
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
