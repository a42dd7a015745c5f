import { Counter, Gauge, type Registry } from 'prom-client'

/**
 * What became of a request or a CONNECT. `denied`: by a rule. `refused`: there is no right to go there. `failed`: the place could not be
 * reached. `untrusted`: an intercepted client left without a request, mostly
 * because it does not trust the authority. `busy`: too many tunnels, or closing.
 */
export type ProxyOutcome =
  | 'busy'
  | 'cached'
  | 'denied'
  | 'failed'
  | 'forwarded'
  | 'intercepted'
  | 'loop'
  | 'malformed'
  | 'refused'
  | 'tunnelled'
  | 'unauthorised'
  | 'untrusted'

/** What the forward proxy counts. */
export interface ProxyMetrics {
  proxied(outcome: ProxyOutcome): void
}

/** `tunnels` is asked at every scrape. */
export function createProxyMetrics(registry: Registry, tunnels: () => number): ProxyMetrics {
  registry.registerMetric(
    new Gauge({
      name: 'shoal_proxy_tunnels',
      help: 'Open CONNECT tunnels of the forward proxy, intercepted ones included.',
      registers: [],
      collect() {
        this.set(tunnels())
      },
    }),
  )
  const requests = new Counter({
    name: 'shoal_proxy_requests_total',
    help: 'Requests and tunnels asked of the forward proxy, by what became of them.',
    labelNames: ['outcome'],
    registers: [registry],
  })
  return { proxied: outcome => requests.labels(outcome).inc() }
}
