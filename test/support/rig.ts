import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { Registry } from 'prom-client'
import { BlobReader, ManifestReader, type ManifestReaderOptions, type Sources } from '../../src/blobs/index.ts'
import {
  Scope,
  silentLogger,
  systemClock,
  type BlobKey,
  type BlobSource,
  type Clock,
  type Digest,
  type Logger,
} from '../../src/core/index.ts'
import { ChunkStore } from '../../src/store/index.ts'
import { FakeOrigin } from './fake-origin.ts'

/** The one registry that a Rig knows. */
export const REGISTRY = 'registry.test'

export interface RigOptions {
  readonly maxBytes?: number
  readonly clock?: Clock
  readonly log?: Logger
  /** Stand before the origin in the list of sources. */
  readonly sources?: readonly BlobSource[]
  readonly manifests?: ManifestReaderOptions
  /** Kept afterwards; default: a temporary directory. */
  readonly directory?: string
}

/** A real store and a real reader in front of a fake origin. */
export class Rig implements AsyncDisposable {
  readonly store: ChunkStore
  readonly reader: BlobReader
  readonly manifests: ManifestReader
  readonly origin: FakeOrigin
  readonly sources: Sources
  readonly metrics: Registry
  readonly #scope: Scope

  private constructor(parts: {
    store: ChunkStore
    reader: BlobReader
    manifests: ManifestReader
    sources: Sources
    origin: FakeOrigin
    metrics: Registry
    scope: Scope
  }) {
    this.store = parts.store
    this.reader = parts.reader
    this.manifests = parts.manifests
    this.origin = parts.origin
    this.sources = parts.sources
    this.metrics = parts.metrics
    this.#scope = parts.scope
  }

  static async open(options: RigOptions = {}): Promise<Rig> {
    const scope = new Scope()
    const directory = options.directory ?? (await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-rig-')))
    if (options.directory === undefined) scope.defer(() => fs.rm(directory, { recursive: true, force: true }))
    const metrics = new Registry()
    const log = options.log ?? silentLogger
    const clock = options.clock ?? systemClock
    const store = scope.use(
      await ChunkStore.open(
        { log, clock, metrics },
        { path: directory, maxBytes: options.maxBytes ?? 2 ** 30, minFreeBytes: 0, memoryBytes: 8 * 2 ** 20 },
      ),
    )
    const origin = new FakeOrigin()
    const sources: Sources = {
      origin: registry => (registry === REGISTRY ? origin : undefined),
      forBlob: key => (key.registry === REGISTRY ? [...(options.sources ?? []), origin] : []),
      policy: () => 'auto',
    }
    const reader = scope.use(new BlobReader({ store, sources, log, clock, metrics }))
    const manifests = new ManifestReader(
      { store, access: reader.access, sources, metrics: reader.metrics, log, clock },
      options.manifests ?? { tagTtlMs: 60_000, serveStale: true },
    )
    return new Rig({ store, reader, manifests, origin, sources, metrics, scope })
  }

  key(digest: Digest, repository = 'library/test'): BlobKey {
    return { digest, registry: REGISTRY, repository }
  }

  /** All bytes of a range, through the reader. */
  async read(
    digest: Digest,
    start: number,
    end: number,
    options: { signal?: AbortSignal; authorization?: string } = {},
  ): Promise<Buffer> {
    const stream = await this.reader.stream(this.key(digest), { start, end }, options)
    if (stream === undefined) throw new Error('no source has it')
    const pieces: Uint8Array[] = []
    for await (const piece of stream) pieces.push(piece)
    return Buffer.concat(pieces)
  }

  async metric(name: string): Promise<number> {
    const values = (await this.metrics.getSingleMetric(name)?.get())?.values ?? []
    return values.reduce((sum, { value }) => sum + value, 0)
  }

  close(): Promise<void> {
    return this.#scope.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
