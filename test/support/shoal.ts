import fs from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse, stringify } from 'smol-toml'
import { Child, type Exit } from './child.ts'
import { temporaryDirectory, type TemporaryDirectory } from './tools.ts'

/** The daemon that was compiled together with this file. */
const BIN = fileURLToPath(new URL('../../src/main.js', import.meta.url))

/** Tables as shoal.toml has them: `{ mirror: { default_registry: 'r.test' }, registries: { 'r.test': { host: 'http://...' } } }`. */
export type ConfigTables = Readonly<Record<string, unknown>>

export interface ShoalOptions {
  /** Tables or TOML text. What it does not say: listen on free ports of 127.0.0.1, keep the state below `directory`. */
  readonly config?: ConfigTables | string
  /** Holds shoal.toml and state/, and is left alone afterwards, so that the next daemon finds the state. Default: a temporary one. */
  readonly directory?: string
  readonly bin?: string
  /** For node itself: ['--cpu-prof']. */
  readonly nodeArgs?: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  readonly readyTimeoutMs?: number
}

export interface LogRecord {
  readonly msg: string
  readonly [field: string]: unknown
}

/** A daemon in a process of its own. */
export class ShoalProcess implements AsyncDisposable {
  /** `http://127.0.0.1:<port>`. */
  readonly mirror: string
  readonly health: string
  /** The state directory. */
  readonly state: string
  readonly #child: Child
  readonly #temporary: TemporaryDirectory | undefined

  constructor(
    deps: { child: Child; temporary: TemporaryDirectory | undefined },
    options: { mirror: string; health: string; state: string },
  ) {
    this.#child = deps.child
    this.#temporary = deps.temporary
    this.mirror = options.mirror
    this.health = options.health
    this.state = options.state
  }

  get pid(): number {
    return this.#child.pid
  }

  /** stdout and stderr so far. */
  get lines(): readonly string[] {
    return this.#child.lines
  }

  /** The lines that are log records. */
  get records(): readonly LogRecord[] {
    return this.lines.map(parseRecord).filter(record => record !== undefined)
  }

  /** host:port of the mirror, as an image name has it. */
  get mirrorHost(): string {
    return new URL(this.mirror).host
  }

  waitForRecord(match: (record: LogRecord) => boolean, options: { timeoutMs?: number } = {}): Promise<LogRecord> {
    return this.#child.waitForLine(line => {
      const record = parseRecord(line)
      return record !== undefined && match(record) ? record : undefined
    }, options)
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** Resolves when the process is gone. The state stays. */
  async kill9(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#child.exited
  }

  /** SIGTERM, and SIGKILL to a daemon that does not drain in time. The state stays. */
  stop(options: { graceMs?: number } = {}): Promise<Exit> {
    return this.#child.stop(options)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.stop()
    await this.#temporary?.[Symbol.asyncDispose]()
  }
}

/** `shoal serve`, resolved when it is ready. Throws with its last lines when it does not get there. */
export async function startShoal(options: ShoalOptions = {}): Promise<ShoalProcess> {
  const temporary = options.directory === undefined ? await temporaryDirectory('shoal-state') : undefined
  const directory = options.directory ?? temporary?.path ?? ''
  let child: Child | undefined
  try {
    const config = complete(options.config ?? {}, directory)
    const file = path.join(directory, 'shoal.toml')
    await fs.writeFile(file, stringify(config))
    const args = [...(options.nodeArgs ?? []), options.bin ?? BIN, 'serve', '--config', file]
    child = await Child.start(process.execPath, args, { env: environment(directory, options.env) })
    await child.waitForLine(line => (parseRecord(line)?.msg === 'ready' ? true : undefined), {
      timeoutMs: options.readyTimeoutMs ?? 30_000,
    })
    return new ShoalProcess(
      { child, temporary },
      { mirror: listener(child, 'mirror'), health: listener(child, 'health'), state: String(config.state['path']) },
    )
  } catch (error: unknown) {
    await child?.stop()
    await temporary?.[Symbol.asyncDispose]()
    throw error
  }
}

/** Nothing of the caller's own shoal or docker configuration gets in. */
function environment(directory: string, more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('SHOAL_'))
  return { ...Object.fromEntries(inherited), DOCKER_CONFIG: directory, ...more }
}

function complete(config: ConfigTables | string, directory: string): Record<string, unknown> & { state: ConfigTables } {
  const tables: ConfigTables = typeof config === 'string' ? parse(config) : config
  const section = (name: string, defaults: ConfigTables): ConfigTables => ({
    ...defaults,
    ...(tables[name] as ConfigTables | undefined),
  })
  return {
    ...tables,
    mirror: section('mirror', { listen: ['127.0.0.1:0'] }),
    health: section('health', { listen: ['127.0.0.1:0'] }),
    state: section('state', { path: path.join(directory, 'state') }),
  }
}

function listener(child: Child, name: string): string {
  for (const line of child.lines) {
    const record = parseRecord(line)
    if (record?.msg === 'listening' && record['listener'] === name) return `http://${String(record['address'])}`
  }
  throw new Error(child.describe(`did not say where its ${name} listener is`))
}

function parseRecord(line: string): LogRecord | undefined {
  if (!line.startsWith('{')) return undefined
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null && 'msg' in value ? (value as LogRecord) : undefined
  } catch {
    return undefined
  }
}
