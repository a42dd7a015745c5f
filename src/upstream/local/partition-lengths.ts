import { LRUCache } from 'lru-cache'
import { ShoalError, SingleFlight, type Clock, type Digest, type SourceOptions } from '../../core/index.ts'
import { findBlobLength } from './blob-length.ts'
import { FileRange } from './file-range.ts'
import type { Partition } from './gpt.ts'

const MAX_REMEMBERED = 10_000
/** A partition that does not hold its blob is read again only after so long; somebody may be writing to it. */
const RETRY_MS = 60_000

type Finding = { readonly length: number } | { readonly failedAt: number }

/** How long the blobs in partitions are. Each is found out once, for all who ask meanwhile, and remembered while the partition stays. */
export class PartitionLengths {
  readonly #clock: Clock
  readonly #file: string
  readonly #flights = new SingleFlight<number>()
  readonly #findings = new LRUCache<string, Finding>({ max: MAX_REMEMBERED })

  constructor(deps: { readonly clock: Clock }, options: { readonly file: string }) {
    this.#clock = deps.clock
    this.#file = options.file
  }

  /** Throws ERR_DIGEST_MISMATCH when the partition holds something else, ERR_UPSTREAM_BODY or ERR_UPSTREAM_TRANSPORT. */
  async lengthOf(partition: Partition, digest: Digest, options: SourceOptions): Promise<number> {
    const { end, start } = partition.range
    const place = `${digest} ${start}-${end}`
    return (
      this.#known(place, partition, digest) ??
      this.#flights.run(place, work => this.#measure(place, partition, digest, work), options)
    )
  }

  async #measure(place: string, partition: Partition, digest: Digest, signal: AbortSignal): Promise<number> {
    const { end, start } = partition.range
    const file = this.#file
    const bytes = (range: typeof partition.range): FileRange =>
      new FileRange({ received: () => undefined }, { file, range, signal })
    for await (const last of bytes({ start: end - 1, end })) {
      // Nothing was padded, so there is nothing to find out.
      if (last[0] !== 0) return this.#remember(place, end - start)
    }
    const length = await findBlobLength(bytes(partition.range), digest)
    if (length !== undefined) return this.#remember(place, length)
    this.#findings.set(place, { failedAt: this.#clock.now() })
    throw this.#mismatch(partition, digest)
  }

  #known(place: string, partition: Partition, digest: Digest): number | undefined {
    const finding = this.#findings.get(place)
    if (finding === undefined) return undefined
    if ('length' in finding) return finding.length
    if (this.#clock.now() - finding.failedAt < RETRY_MS) throw this.#mismatch(partition, digest)
    return undefined
  }

  #remember(place: string, length: number): number {
    this.#findings.set(place, { length })
    return length
  }

  #mismatch({ number }: Partition, digest: Digest): ShoalError {
    const what = `partition ${number} of ${this.#file} does not hold ${digest}, however many zeros are cut off its end`
    return new ShoalError('ERR_DIGEST_MISMATCH', what, { details: { file: this.#file, partition: number, digest } })
  }
}
