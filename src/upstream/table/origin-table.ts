import { LRUCache } from 'lru-cache'
import { describeError, ShoalError, type BlobSource, type Digest, type Logger, type Origin } from '../../core/index.ts'
import { openKeychain, type OpenKeychain } from '../auth/index.ts'
import { hostsSignature } from '../hosts/index.ts'
import type { OriginTableOptions, UpstreamDeps, VisibilityPolicy } from '../options.ts'
import type { EgressTarget, Entry, EntryPlan, RegistryState } from './entry.ts'
import { ANY, planTable, type TablePlan } from './plan-table.ts'

/** Whoever took an origin from the table before a reload may go on asking it for this long. */
const RETIRE_MS = 30_000
/** Names that `*`, `_default` or allow_any stand for and that are in use; the one unused longest is closed for a new one. */
const MAX_OTHERS = 256
/** How often certs.d is looked at. containerd reads it at every pull. */
const HOSTS_INTERVAL_MS = 2_000

interface Kept {
  readonly entry: Entry
  readonly fingerprint: string
  readonly isBroken: boolean
}

interface Keys {
  readonly keychain: OpenKeychain
  /** What it was opened with. */
  readonly options: string
}

/** The closed world of origins: what a request names is a key of this table, never an address. */
export class OriginTable implements AsyncDisposable {
  readonly #deps: UpstreamDeps
  readonly #log: Logger
  readonly #closing = new AbortController()
  readonly #retired = new Set<Promise<void>>()
  #named: ReadonlyMap<string, Kept> = new Map()
  /** By name: what the table has no entry for, and what it was made into. */
  readonly #others: LRUCache<string, Kept>
  #plan: TablePlan | undefined
  #options: OriginTableOptions | undefined
  #keys: Keys | undefined
  #hosts = ''
  #watch: NodeJS.Timeout | undefined
  #reloads: Promise<void> = Promise.resolve()
  #isChecking = false
  /** What was wrong with certs.d when it was looked at last. */
  #complaint: string | undefined

  private constructor(deps: UpstreamDeps) {
    this.#deps = deps
    this.#log = deps.log
    this.#others = new LRUCache({
      max: MAX_OTHERS,
      dispose: ({ entry }, _name, reason) => {
        // Whoever asks for names that nobody uses is not to fill the memory with them.
        const isFlood = reason === 'evict' && this.#retired.size >= MAX_OTHERS
        this.#retire(entry.close, entry.origin.name, isFlood ? 0 : RETIRE_MS)
      },
    })
  }

  /** Throws ERR_CONFIG_INVALID. Asks nothing of the network. */
  static async open(deps: UpstreamDeps, options: OriginTableOptions): Promise<OriginTable> {
    const table = new OriginTable(deps)
    await table.reload(options)
    return table
  }

  /** `name`: normalised, as normaliseRegistry makes it. Undefined: not in the table. Throws ERR_CLOSED. */
  get(name: string): Origin | undefined {
    return this.#entry(name)?.origin
  }

  /** Where blobs of `name` may come from, in the order to try; the last is the origin itself. Empty: not in the table. Throws ERR_CLOSED. */
  sources(name: string): readonly BlobSource[] {
    return this.#entry(name)?.sources ?? []
  }

  /** Who may read what comes from `name`. Undefined: not in the table. Throws ERR_CLOSED. */
  policy(name: string): VisibilityPolicy | undefined {
    const entry = this.#entry(name)
    return entry === undefined ? undefined : (entry.visibility ?? 'auto')
  }

  /**
   * How to reach the server behind `name`. `isListed`: only if the table has it under that very name. Undefined: not in the table, or
   * nothing to be reached by HTTP. Throws ERR_CLOSED.
   */
  target(name: string, { isListed = false }: { readonly isListed?: boolean } = {}): EgressTarget | undefined {
    return (isListed ? this.#named.get(name)?.entry : this.#entry(name))?.target
  }

  /** The target whose server is at this `host:port`, whatever its name. */
  targetAt(host: string): EgressTarget | undefined {
    for (const { entry } of this.#named.values()) if (entry.target?.base.host === host) return entry.target
    return undefined
  }

  /** Sorted; `*` among them when it is configured. */
  names(): string[] {
    return [...this.#named.keys(), ...(this.#plan?.hasAny === true ? [ANY] : [])].sort()
  }

  /** Registries that have mirrors or a proxy, with the state of each. Those of `*` and the like once somebody has asked for them. */
  registries(): RegistryState[] {
    return this.#kept()
      .flatMap(({ entry }) => (entry.state === undefined ? [] : [entry.state()]))
      .filter(({ mirrors, proxy }) => mirrors.length > 0 || proxy !== undefined)
      .sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  /** Bytes that came from `sources`, by name, do not match their digest: those of them that are mirrors are not asked for it for a while. */
  distrust(digest: Digest, sources: readonly string[]): void {
    for (const { entry } of this.#kept()) entry.distrust?.(digest, sources)
  }

  /**
   * Replaces the table. Entries that have not changed keep their connections and tokens; the others are closed once they have been out of
   * the table for a while and are idle. When anything is wrong with `options` it throws ERR_CONFIG_INVALID and the table stays as it was.
   * A hosts.toml that cannot be used is wrong with its own host only, and that host stays as it was.
   */
  reload(options: OriginTableOptions): Promise<void> {
    return this.#inTurn(() => this.#replace(options))
  }

  /** Refuses new work and waits for bodies that are being read. May be called again. */
  async close(): Promise<void> {
    this.#closing.abort(new ShoalError('ERR_CLOSED', 'the origin table is closed'))
    clearInterval(this.#watch)
    await this.#reloads
    this.#others.clear()
    await Promise.all([...this.#named.values()].map(({ entry }) => entry.close()))
    await Promise.all(this.#retired)
    await this.#keys?.keychain.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#reloads.then(work)
    this.#reloads = turn.catch(() => undefined)
    return turn
  }

  #kept(): Kept[] {
    return [...this.#named.values(), ...this.#others.values()]
  }

  #entry(name: string): Entry | undefined {
    this.#checkOpen()
    if (name === ANY) return undefined
    const kept = this.#named.get(name) ?? this.#others.get(name)
    if (kept !== undefined) return kept.entry
    const plan = this.#plan?.other(name)
    if (plan === undefined) return undefined
    const entry = plan.make()
    this.#others.set(name, { entry, fingerprint: plan.fingerprint, isBroken: plan.broken !== undefined })
    return entry
  }

  async #replace(options: OriginTableOptions): Promise<void> {
    this.#checkOpen()
    const hosts = await this.#signature(options)
    const keys = await this.#openKeys(options)
    const made: Entry[] = []
    const next = new Map<string, Kept>()
    let plan: TablePlan
    try {
      const deps = { ...this.#deps, keychain: keys.keychain, keychainId: keys.options }
      plan = await planTable(deps, options, this.#plan?.defaults)
      for (const [name, wanted] of plan.named) next.set(name, await this.#keepOrMake(name, wanted, made))
      this.#checkOpen()
    } catch (error: unknown) {
      await Promise.all(made.map(entry => entry.close()))
      if (keys !== this.#keys) await keys.keychain.close()
      throw error
    }
    for (const [name, kept] of this.#named)
      if (next.get(name) !== kept) this.#retire(kept.entry.close, kept.entry.origin.name)
    this.#named = next
    this.#plan = plan
    this.#options = options
    if (this.#keys !== undefined && this.#keys !== keys)
      this.#retire(this.#keys.keychain.close.bind(this.#keys.keychain), 'keychain')
    this.#keys = keys
    this.#hosts = hosts
    for (const [name, { fingerprint }] of this.#others.entries()) {
      if (next.has(name) || plan.other(name)?.fingerprint !== fingerprint) this.#others.delete(name)
    }
    this.#watchHosts(options)
  }

  async #keepOrMake(name: string, { broken, fingerprint, make }: EntryPlan, made: Entry[]): Promise<Kept> {
    const old = this.#named.get(name)
    if (broken !== undefined) this.#log.error({ registry: name, cause: describeError(broken) }, 'hosts.toml not used')
    if (old?.fingerprint === fingerprint || (old?.isBroken === false && broken !== undefined)) return old
    const entry = await make()
    made.push(entry)
    return { entry, fingerprint, isBroken: broken !== undefined }
  }

  async #openKeys({ credentialPlugins, dockerConfig }: OriginTableOptions): Promise<Keys> {
    const options = JSON.stringify({ credentialPlugins, dockerConfig })
    if (this.#keys?.options === options) return this.#keys
    return { options, keychain: await openKeychain(this.#deps, { dockerConfig, plugins: credentialPlugins }) }
  }

  #signature({ certsD }: OriginTableOptions): Promise<string> {
    return certsD === '' ? Promise.resolve('') : hostsSignature({ root: certsD })
  }

  #watchHosts({ certsD }: OriginTableOptions): void {
    clearInterval(this.#watch)
    if (certsD === '') return
    // Never rejects: what is wrong with a host becomes a line of the log.
    this.#watch = setInterval(() => void this.#checkHosts(), HOSTS_INTERVAL_MS)
  }

  /** One at a time: a file system that hangs is not to take every thread of the process. */
  async #checkHosts(): Promise<void> {
    if (this.#isChecking) return
    this.#isChecking = true
    try {
      if (await this.#isOutdated()) await this.#inTurn(() => this.#readAgain())
      this.#complaint = undefined
    } catch (error: unknown) {
      const complaint = describeError(error)
      if (this.#closing.signal.aborted || complaint === this.#complaint) return
      this.#complaint = complaint
      this.#log.error({ err: error }, 'certs.d not used')
    } finally {
      this.#isChecking = false
    }
  }

  async #isOutdated(): Promise<boolean> {
    return this.#options !== undefined && (await this.#signature(this.#options)) !== this.#hosts
  }

  /** With the options in force when its turn comes: a reload may have been under way when the change was noticed. */
  async #readAgain(): Promise<void> {
    const options = this.#options
    if (options === undefined || this.#closing.signal.aborted || !(await this.#isOutdated())) return
    await this.#replace(options)
    this.#log.info({ path: options.certsD }, 'certs.d read again')
  }

  #retire(close: () => Promise<void>, name: string, afterMs = RETIRE_MS): void {
    const retired = this.#closeLater(close, name, afterMs).finally(() => this.#retired.delete(retired))
    this.#retired.add(retired)
  }

  async #closeLater(close: () => Promise<void>, name: string, afterMs: number): Promise<void> {
    try {
      if (afterMs > 0) await this.#deps.clock.sleep(afterMs, { signal: this.#closing.signal })
    } catch {
      // The table is being closed, and this origin with it.
    }
    try {
      await close()
    } catch (error: unknown) {
      this.#log.warn({ origin: name, cause: describeError(error) }, 'origin not closed cleanly')
    }
  }

  #checkOpen(): void {
    if (this.#closing.signal.aborted) throw this.#closing.signal.reason
  }
}
