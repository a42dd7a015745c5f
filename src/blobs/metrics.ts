import { Counter, Gauge, type Registry } from 'prom-client'

/** What the blob reader counts. Labels come from closed sets: never a digest, a repository or a source's address. */
export interface BlobMetrics {
  readonly fetches: Counter<'outcome'>
  readonly fetchedBytes: Counter
  readonly unstoredBytes: Counter
  readonly sourceFailures: Counter<'code'>
  readonly fills: Gauge
  readonly staleAnswers: Counter<'kind'>
}

export function createBlobMetrics(registry: Registry): BlobMetrics {
  const registers = [registry]
  return {
    fetches: new Counter({
      name: 'shoal_fetches_total',
      help: 'Ranged fetches from any source, by outcome: done, failed, aborted.',
      labelNames: ['outcome'],
      registers,
    }),
    fetchedBytes: new Counter({ name: 'shoal_fetched_bytes_total', help: 'Bytes received from sources.', registers }),
    unstoredBytes: new Counter({
      name: 'shoal_unstored_bytes_total',
      help: 'Bytes that were streamed to readers but could not be kept: store full, or its disk refused them.',
      registers,
    }),
    sourceFailures: new Counter({
      name: 'shoal_source_failures_total',
      help: 'Failures of a source, by error code; the next source was tried.',
      labelNames: ['code'],
      registers,
    }),
    fills: new Gauge({ name: 'shoal_fills', help: 'Blobs that are being filled now.', registers }),
    staleAnswers: new Counter({
      name: 'shoal_stale_answers_total',
      help: 'Answers given from the cache although the origin could not be asked, by kind: blob, manifest.',
      labelNames: ['kind'],
      registers,
    }),
  }
}
