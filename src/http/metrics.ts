import type { ServerResponse } from 'node:http'
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Target } from './target.ts'

/** What nginx logs for a client that left before it was answered. */
const CLIENT_LEFT = 499

/** What the listeners count. */
export interface HttpMetrics {
  /** One request has been answered, `seconds` after its head was in. */
  served(route: Target['kind'], status: number, seconds: number): void
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
  const requests = new Counter({
    name: 'shoal_http_requests_total',
    help: 'Requests answered by the mirror listener, by route and status.',
    labelNames: ['route', 'status'],
    registers,
  })
  const duration = new Histogram({
    name: 'shoal_http_request_duration_seconds',
    help: 'From the request head to the last byte of the answer, by route.',
    labelNames: ['route'],
    buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 1, 5, 30, 120],
    registers,
  })
  // Looking a child up by its labels costs more than counting, so each is looked up once.
  const children = new Map<string, (seconds: number) => void>()
  const childOf = (route: Target['kind'], status: number): ((seconds: number) => void) => {
    const counter = requests.labels(route, String(status))
    const histogram = duration.labels(route)
    return seconds => {
      counter.inc()
      histogram.observe(seconds)
    }
  }
  return {
    served: (route, status, seconds) => {
      const key = `${route} ${status}`
      const known = children.get(key) ?? childOf(route, status)
      children.set(key, known)
      known(seconds)
    },
  }
}

/** The status to count and to log for an answer that has come to its end. */
export function statusOf(response: ServerResponse): number {
  return response.headersSent ? response.statusCode : CLIENT_LEFT
}
