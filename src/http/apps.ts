import type { RequestListener } from 'node:http'
import fastify, { type FastifyInstance } from 'fastify'
import type { Registry } from 'prom-client'
import { ERROR_TABLE, ShoalError, describeError, errorCode, type Logger } from '../core/index.ts'
import { adminRoutes, type AdminDeps } from './admin-routes.ts'
import { healthRoutes, type HealthView } from './health-routes.ts'

/** A small fastify application; `handler` goes behind as many listeners as are wanted. */
export interface App {
  readonly handler: RequestListener
  close(): Promise<void>
}

export function openHealthApp(deps: { health: HealthView; metrics: Registry; log: Logger }): Promise<App> {
  return open(deps.log, app => healthRoutes(app, deps))
}

export function openAdminApp(deps: AdminDeps & { log: Logger }): Promise<App> {
  return open(deps.log, app => adminRoutes(app, deps))
}

async function open(log: Logger, routes: (app: FastifyInstance) => void): Promise<App> {
  const app = fastify({ logger: false, forceCloseConnections: true })
  app.setErrorHandler(async (error: Error & { statusCode?: number }, _request, reply) => {
    const status =
      error instanceof ShoalError ? (ERROR_TABLE[error.code].retryable ? 503 : 400) : (error.statusCode ?? 500)
    if (status >= 500) log.error({ err: error }, 'admin request failed')
    return reply.code(status).send({ error: errorCode(error) ?? 'ERR_REQUEST', message: describeError(error) })
  })
  app.setNotFoundHandler(async (request, reply) =>
    reply
      .code(404)
      .send({ error: 'ERR_REQUEST', message: `no such path: ${request.method} ${request.url.split('?')[0] ?? ''}` }),
  )
  routes(app)
  await app.ready()
  return { handler: (request, response) => app.routing(request, response), close: () => app.close() }
}
