import { Counter, Histogram, type Metric, type Registry } from 'prom-client'

export type OriginKind = 'registry' | 'mirror' | 'oci-layout' | 'localfs' | 'localdisk' | 'http' | 's3' | 'oss'

/** How one request ended. `refused`: 401 or 403; `throttled`: 429. */
export type RequestOutcome =
  | 'success'
  | 'redirect'
  | 'absent'
  | 'refused'
  | 'throttled'
  | 'client-error'
  | 'server-error'
  | 'timeout'
  | 'transport'
  | 'aborted'
  | 'failed'

export type RetryCause = 'status' | 'throttled' | 'timeout' | 'transport' | 'body'

export type TokenOutcome = 'success' | 'refused' | 'failed' | 'aborted'

/** What this room counts. Labels come from closed sets: never a digest, a repository or a host. */
export interface UpstreamMetrics {
  readonly requests: Counter<'origin_kind' | 'outcome'>
  readonly duration: Histogram<'origin_kind'>
  readonly bytes: Counter
  readonly retries: Counter<'cause'>
  readonly tokenRequests: Counter<'outcome'>
  readonly rangesIgnored: Counter
}

/** May be called again with the same registry: the metrics that are there are used. */
export function createUpstreamMetrics(registry: Registry): UpstreamMetrics {
  const registers = [registry]
  return {
    requests: once(
      registry,
      'shoal_upstream_requests_total',
      name =>
        new Counter({
          name,
          help: 'Requests to origins, each redirect and each retry counted, by outcome of their headers.',
          labelNames: ['origin_kind', 'outcome'],
          registers,
        }),
    ),
    duration: once(
      registry,
      'shoal_upstream_request_duration_seconds',
      name =>
        new Histogram({
          name,
          help: 'Time from a request to an origin until the headers of its answer.',
          labelNames: ['origin_kind'],
          buckets: [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
          registers,
        }),
    ),
    bytes: once(
      registry,
      'shoal_upstream_bytes_total',
      name => new Counter({ name, help: 'Bytes of blobs received from origins, discarded ones included.', registers }),
    ),
    retries: once(
      registry,
      'shoal_upstream_retries_total',
      name =>
        new Counter({
          name,
          help: 'Requests repeated, and bodies resumed, by what had failed.',
          labelNames: ['cause'],
          registers,
        }),
    ),
    tokenRequests: once(
      registry,
      'shoal_upstream_token_requests_total',
      name =>
        new Counter({ name, help: 'Requests for registry tokens, by outcome.', labelNames: ['outcome'], registers }),
    ),
    rangesIgnored: once(
      registry,
      'shoal_upstream_ranges_ignored_total',
      name => new Counter({ name, help: 'Ranged requests that an origin answered with the whole blob.', registers }),
    ),
  }
}

/** A name is only ever declared here, so what is found under it has the type it was made with. */
export function once<T extends Metric>(registry: Registry, name: string, make: (name: string) => T): T {
  return (registry.getSingleMetric(name) as T | undefined) ?? make(name)
}
