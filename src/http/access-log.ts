import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Logger } from '../core/index.ts'
import { parseAbsoluteForm } from './absolute-form.ts'
import { statusOf } from './metrics.ts'

/** One line for an answer that has come to its end, `seconds` after its request's head was in. */
export function logAccess(log: Logger, request: IncomingMessage, response: ServerResponse, seconds: number): void {
  log.info(
    {
      method: request.method,
      path: pathOf(request.url ?? ''),
      status: statusOf(response),
      complete: response.writableFinished,
      seconds,
      agent: request.headers['user-agent'],
      client: request.socket.remoteAddress,
    },
    'access',
  )
}

/** Neither a query nor what stands before the path of a URL, which may hold a password. */
function pathOf(url: string): string | undefined {
  return (parseAbsoluteForm(url)?.path ?? url).split('?')[0]
}
