import { createHash } from 'node:crypto'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { Registry } from 'prom-client'
import {
  BLOCK_BYTES,
  blockCount,
  formatDigest,
  type Clock,
  type Digest,
  type DigestAlgorithm,
  type Logger,
} from '../../src/core/index.ts'
import { ChunkStore, type DataFiles, type StoredBlob, type StoreOptions } from '../../src/store/index.ts'

export const MIB = 1024 * 1024

/** Time that moves only when told. */
export class ManualClock implements Clock {
  #now = 1_700_000_000_000
  readonly #sleepers = new Set<{ at: number; wake: () => void }>()

  now(): number {
    return this.#now
  }

  random(): number {
    return 0.5
  }

  async sleep(ms: number, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    signal?.throwIfAborted()
    await new Promise<void>((resolve, reject) => {
      const sleeper = { at: this.#now + ms, wake: resolve }
      this.#sleepers.add(sleeper)
      signal?.addEventListener('abort', () => {
        this.#sleepers.delete(sleeper)
        reject(signal.reason as Error)
      })
    })
  }

  get sleeping(): number {
    return this.#sleepers.size
  }

  advance(ms: number): void {
    this.#now += ms
    for (const sleeper of [...this.#sleepers]) {
      if (sleeper.at > this.#now) continue
      this.#sleepers.delete(sleeper)
      sleeper.wake()
    }
  }
}

export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly event: string
  readonly fields: Readonly<Record<string, unknown>>
}

export function recordingLogger(lines: LogLine[]): Logger {
  const at =
    (level: LogLine['level']) =>
    (fields: object, event: string): void => {
      lines.push({ level, event, fields: { ...fields } })
    }
  const logger: Logger = {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: () => logger,
  }
  return logger
}

/** What a test breaks: return an error to fail the call with it, undefined to let it through. */
export interface Faults {
  read?: (digest: Digest, position: number) => Error | undefined
  /** Runs before a read does. */
  beforeRead?: (position: number) => Promise<void>
  write?: (digest: Digest) => Error | undefined
  probe?: () => Error | undefined
  punch?: () => Error | undefined
  retire?: () => Error | undefined
  /** Stands in for the descriptor that is hashed or flushed. */
  descriptor?: (fd: number) => Promise<number>
  emptyTrash?: () => Error | undefined
  deleteOrphan?: () => Error | undefined
  /** Instead of the disk's own figure. */
  freeBytes?: () => number | undefined
}

function faulty(files: DataFiles, faults: Faults): DataFiles {
  const failing = async <T>(error: Error | undefined, work: () => Promise<T>): Promise<T> => {
    if (error !== undefined) throw error
    return work()
  }
  return {
    readNow: (ref, target, position) => files.readNow(ref, target, position),
    sendNow: (ref, socket, position, length) => files.sendNow(ref, socket, position, length),
    read: async (ref, target, position) => {
      await faults.beforeRead?.(position)
      return failing(faults.read?.(ref.digest, position), () => files.read(ref, target, position))
    },
    write: (ref, pieces, position) => failing(faults.write?.(ref.digest), () => files.write(ref, pieces, position)),
    punch: (ref, spans) => failing(faults.punch?.(), () => files.punch(ref, spans)),
    withDescriptor: (ref, work) => files.withDescriptor(ref, async fd => work((await faults.descriptor?.(fd)) ?? fd)),
    retire: ref => failing(faults.retire?.(), () => files.retire(ref)),
    erase: ref => files.erase(ref),
    stat: ref => files.stat(ref),
    truncate: (ref, size) => files.truncate(ref, size),
    names: () => files.names(),
    deleteOrphan: digest => failing(faults.deleteOrphan?.(), () => files.deleteOrphan(digest)),
    emptyTrash: () => failing(faults.emptyTrash?.(), () => files.emptyTrash()),
    freeBytes: async () => (faults.freeBytes === undefined ? files.freeBytes() : faults.freeBytes()),
    probe: () => failing(faults.probe?.(), () => files.probe()),
    close: () => files.close(),
  }
}

export function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: injected`), { code })
}

/** A temporary directory, and stores in it. Closes and removes everything at the end. */
export class Bench implements AsyncDisposable {
  readonly directory: string
  readonly clock = new ManualClock()
  readonly lines: LogLine[] = []
  readonly faults: Faults = {}
  registry = new Registry()
  readonly #stores: ChunkStore[] = []

  private constructor(directory: string) {
    this.directory = directory
  }

  static async open(): Promise<Bench> {
    return new Bench(await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-store-')))
  }

  async store(options: Partial<StoreOptions> = {}): Promise<ChunkStore> {
    this.registry = new Registry()
    const store = await ChunkStore.open(
      {
        log: recordingLogger(this.lines),
        clock: this.clock,
        metrics: this.registry,
        wrapFiles: files => faulty(files, this.faults),
      },
      { path: this.directory, maxBytes: 1024 * MIB, minFreeBytes: 0, memoryBytes: 0, ...options },
    )
    this.#stores.push(store)
    return store
  }

  /** Where a blob's data file is. */
  file(digest: Digest): string {
    const [algorithm = '', hex = ''] = digest.split(':')
    return path.join(this.directory, 'blobs', algorithm, hex.slice(0, 2), hex)
  }

  logged(event: string): LogLine[] {
    return this.lines.filter(line => line.event.includes(event))
  }

  async metric(name: string): Promise<number> {
    const metric = await this.registry.getSingleMetric(name)?.get()
    return metric?.values.reduce((sum, { value }) => sum + value, 0) ?? Number.NaN
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#stores) await store.close()
    await fs.rm(this.directory, { recursive: true, force: true })
  }
}

/** Bytes that depend on nothing but the arguments, and differ in every block. */
export function contentOf(size: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(size)
  let state = (seed * 2654435761) >>> 0 || 1
  let at = 0
  for (; at + 4 <= size; at += 4) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes.writeInt32LE(state, at)
  }
  for (; at < size; at += 1) bytes[at] = (seed + at) & 0xff
  return bytes
}

export function digestOf(bytes: Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return formatDigest(algorithm, createHash(algorithm).update(bytes).digest('hex'))
}

export function blockOf(bytes: Buffer, block: number): Buffer {
  return bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
}

/** Writes the blocks, one after the other; whether each was stored. */
export async function put(
  blob: StoredBlob,
  bytes: Buffer,
  blocks: readonly number[] = Array.from({ length: blockCount(bytes.byteLength) }, (_, block) => block),
  source = 'registry:test',
): Promise<boolean[]> {
  const stored: boolean[] = []
  for (const block of blocks) stored.push(await blob.write(block, [Buffer.from(blockOf(bytes, block))], source))
  return stored
}

/** A blob in the store, written in full and proven. */
export async function putWhole(store: ChunkStore, bytes: Buffer, mediaType?: string): Promise<StoredBlob> {
  const info = mediaType === undefined ? {} : { mediaType }
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength, ...info })
  await put(blob, bytes)
  await blob.settled()
  return blob
}

export function mustFind(store: ChunkStore, digest: Digest): StoredBlob {
  const blob = store.find(digest)
  if (blob === undefined) throw new Error(`${digest} is not in the store`)
  return blob
}

/** Turns of the event loop until `done`; throws after ten seconds. */
export async function until(done: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 10_000
  while (!done()) {
    if (Date.now() > deadline) throw new Error(`never happened: ${what}`)
    await new Promise(setImmediate)
  }
}
