import type { FastifyInstance } from 'fastify'
import type { Registry } from 'prom-client'
import { PINGS } from './pings.ts'

/** What the health listener needs to know. */
export interface HealthView {
  ready(): { readonly ok: boolean; readonly components: Readonly<Record<string, unknown>> }
}

/** The pings say that somebody is there; /readyz says more; /metrics is for Prometheus. */
export function healthRoutes(app: FastifyInstance, deps: { health: HealthView; metrics: Registry }): void {
  for (const [path, { headers, body }] of PINGS) app.get(path, (_request, reply) => reply.headers(headers).send(body))
  app.get('/readyz', async (_request, reply) => {
    const { ok, components } = deps.health.ready()
    return reply.code(ok ? 200 : 503).send({ ready: ok, components })
  })
  app.get('/metrics', async (_request, reply) =>
    reply.type(deps.metrics.contentType).send(await deps.metrics.metrics()),
  )
}
