import { Registry } from 'prom-client'
import {
  rangeLength,
  tryParseDigest,
  type BlobKey,
  type BlobSource,
  type ByteRange,
  type Clock,
  type Digest,
  type Logger,
  type SourceOptions,
} from '../../src/core/index.ts'
import { PUBLIC_TLS, RegistryOrigin, type RegistryOriginOptions, type UpstreamDeps } from '../../src/upstream/index.ts'
import { startScriptedOrigin, type ScriptedOrigin, type ScriptedOriginOptions } from '../support/scripted-origin.ts'

export const REPOSITORY = 'library/test'

/** Time stands still except while somebody sleeps; how long they slept is remembered. */
export class TestClock implements Clock {
  time = Date.UTC(2026, 0, 1)
  readonly sleeps: number[] = []
  chance = 0.5
  /** May throw, or wait, instead of sleeping. */
  onSleep: (ms: number) => Promise<void> | void = () => undefined

  now(): number {
    return this.time
  }

  random(): number {
    return this.chance
  }

  async sleep(ms: number, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    signal?.throwIfAborted()
    this.sleeps.push(ms)
    this.time += ms
    await this.onSleep(ms)
    signal?.throwIfAborted()
  }
}

/** Keeps everything that was logged, as the text that would be written. */
export class TestLog implements Logger {
  readonly lines: string[]

  constructor(lines: string[] = []) {
    this.lines = lines
  }

  debug(fields: object, event: string): void {
    this.#write(fields, event)
  }

  info(fields: object, event: string): void {
    this.#write(fields, event)
  }

  warn(fields: object, event: string): void {
    this.#write(fields, event)
  }

  error(fields: object, event: string): void {
    this.#write(fields, event)
  }

  child(): Logger {
    return this
  }

  #write(fields: object, event: string): void {
    this.lines.push(
      `${event} ${JSON.stringify(fields, (_, value: unknown) => (value instanceof Error ? spelled(value) : value))}`,
    )
  }
}

/** Everything an error would give away, with its causes. */
export function spelled(error: unknown): string {
  if (!(error instanceof Error)) return JSON.stringify(error)
  const details = 'details' in error ? JSON.stringify(error.details) : ''
  const cause = error.cause === undefined ? '' : ` <- ${spelled(error.cause)}`
  return `${error.stack ?? error.message} ${details}${cause}`
}

export interface RegistryRig extends AsyncDisposable {
  readonly origin: ScriptedOrigin
  readonly registry: RegistryOrigin
  readonly clock: TestClock
  readonly log: TestLog
  readonly metrics: Registry
}

export const DEFAULTS = {
  name: 'registry.test',
  tls: PUBLIC_TLS,
  visibility: 'auto',
  headers: {},
  connectTimeoutMs: 2_000,
  idleTimeoutMs: 2_000,
  retries: 3,
  maxConnections: 16,
} as const

export function testDeps(clock: Clock = new TestClock(), log: Logger = new TestLog()): UpstreamDeps {
  return { clock, log, metrics: new Registry() }
}

/** A scripted origin and the client in front of it. */
export async function openRig(
  scripted: ScriptedOriginOptions = {},
  options: Partial<RegistryOriginOptions> = {},
): Promise<RegistryRig> {
  const origin = await startScriptedOrigin(scripted)
  const clock = new TestClock()
  const log = new TestLog()
  const metrics = new Registry()
  origin.auth.now = () => clock.now()
  const host = `${origin.url}${scripted.prefix ?? ''}`
  const registry = await RegistryOrigin.open({ clock, log, metrics }, { ...DEFAULTS, host, ...options })
  return {
    origin,
    registry,
    clock,
    log,
    metrics,
    [Symbol.asyncDispose]: async () => {
      await origin.close()
      await registry.close()
    },
  }
}

export function keyOf(digest: string, repository = REPOSITORY): BlobKey {
  const parsed = tryParseDigest(digest)
  if (parsed === undefined) throw new Error(`not a digest: ${digest}`)
  return { digest: parsed, registry: 'registry.test', repository }
}

export function asDigest(text: string): Digest {
  return keyOf(text).digest
}

export async function collect(body: AsyncIterable<Uint8Array> | undefined): Promise<Buffer> {
  if (body === undefined) throw new Error('the source does not have it')
  const pieces: Uint8Array[] = []
  for await (const piece of body) pieces.push(piece)
  return Buffer.concat(pieces)
}

export async function readRange(
  source: BlobSource,
  digest: string,
  range: ByteRange,
  options: SourceOptions = {},
): Promise<Buffer> {
  const bytes = await collect(await source.open(keyOf(digest), range, options))
  if (bytes.length !== rangeLength(range)) throw new Error(`${bytes.length} bytes instead of ${rangeLength(range)}`)
  return bytes
}

/** The sum of a metric's values, or of those with these labels. */
export async function metric(registry: Registry, name: string, labels: Record<string, string> = {}): Promise<number> {
  const values = (await registry.getSingleMetric(name)?.get())?.values ?? []
  return values
    .filter(value => Object.entries(labels).every(([label, wanted]) => value.labels[label] === wanted))
    .reduce((sum, { value }) => sum + value, 0)
}

/** A polling wait with a deadline, for what no event tells. */
export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + 5_000
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within 5 s: ${what}`)
    await new Promise(resolve => setImmediate(resolve))
  }
}
