import { Counter, Gauge, type Registry } from 'prom-client'

/** What the gauges read at scrape. */
export interface StoreGauges {
  readonly bytes: number
  readonly blobs: number
  readonly maxBytes: number
  readonly writable: boolean
}

export interface StoreMetrics extends Disposable {
  /** Blocks read from memory: this process's own or the page cache. */
  readonly readFromMemory: Counter.Internal
  /** Blocks read in the thread pool, whether or not the disk had to move. */
  readonly readFromDisk: Counter.Internal
  readonly blocksWritten: Counter
  readonly badBlocks: Counter
  readonly evictedBytes: Counter
  readonly quarantined: Counter
  readonly refusedReservations: Counter
}

/** Declares the room's metrics. Disposing takes them out again, so that a store may be opened twice in one process. */
export function storeMetrics(registry: Registry, read: () => StoreGauges): StoreMetrics {
  const registers = [registry]
  const names: string[] = []
  const named = (name: string): string => {
    names.push(name)
    return name
  }
  const counter = (name: string, help: string): Counter => new Counter({ name: named(name), help, registers })
  const gauge = (name: string, help: string, value: () => number): void => {
    new Gauge({
      name: named(name),
      help,
      registers,
      collect() {
        this.set(value())
      },
    })
  }
  gauge('shoal_store_bytes', 'Bytes of blobs in the store.', () => read().bytes)
  gauge('shoal_store_blobs', 'Blobs in the store.', () => read().blobs)
  gauge('shoal_store_max_bytes', 'Bytes above which blobs are evicted.', () => read().maxBytes)
  gauge('shoal_store_writable', '1 while the disk takes writes, else 0.', () => (read().writable ? 1 : 0))
  const reads = new Counter({
    name: named('shoal_store_block_reads_total'),
    help: 'Blocks read, by where they were: memory (page cache included) or disk.',
    labelNames: ['from'],
    registers,
  })
  return {
    readFromMemory: reads.labels({ from: 'memory' }),
    readFromDisk: reads.labels({ from: 'disk' }),
    blocksWritten: counter('shoal_store_blocks_written_total', 'Blocks written to data files.'),
    badBlocks: counter('shoal_store_bad_blocks_total', 'Blocks that did not match their crc32 or could not be read.'),
    evictedBytes: counter('shoal_store_evicted_bytes_total', 'Bytes evicted to stay below the limit.'),
    quarantined: counter('shoal_store_quarantined_total', 'Blobs whose bytes did not hash to their digest.'),
    refusedReservations: counter('shoal_store_refused_reservations_total', 'Fills that were not let into the store.'),
    [Symbol.dispose]: () => {
      for (const name of names) registry.removeSingleMetric(name)
    },
  }
}
