import { Counter, Gauge, Histogram, type Registry } from 'prom-client'

/** What the listeners count. */
export interface HttpMetrics {
  readonly requests: Counter<'route' | 'status'>
  readonly seconds: Histogram<'route'>
}

/** `connections` is asked at every scrape. */
export function createHttpMetrics(registry: Registry, connections: () => number): HttpMetrics {
  const registers = [registry]
  registry.registerMetric(
    new Gauge({
      name: 'shoal_http_connections',
      help: 'Open connections on the mirror listeners.',
      registers: [],
      collect() {
        this.set(connections())
      },
    }),
  )
  return {
    requests: new Counter({
      name: 'shoal_http_requests_total',
      help: 'Requests answered by the mirror listener, by route and status.',
      labelNames: ['route', 'status'],
      registers,
    }),
    seconds: new Histogram({
      name: 'shoal_http_request_duration_seconds',
      help: 'From the request head to the last byte of the answer, by route.',
      labelNames: ['route'],
      buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 1, 5, 30, 120],
      registers,
    }),
  }
}
