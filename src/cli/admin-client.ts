import { Client, type Dispatcher } from 'undici'
import type { Config } from '../config/index.ts'
import { Scope, ShoalError, systemCode, type Logger } from '../core/index.ts'
import { adminSocket, openMaintenance } from '../daemon.ts'

/** Longer answers than this are no JSON answers of the admin API. */
const MAX_LINE_BYTES = 1024 * 1024

/**
 * Talks to the admin API of the daemon on this state directory; when none runs, opens the store itself and talks to that, so that there is
 * one way to do things. Close it.
 */
export class AdminClient implements AsyncDisposable {
  readonly #client: Client
  readonly #scope: Scope

  private constructor(client: Client, scope: Scope) {
    this.#client = client
    this.#scope = scope
  }

  static async open(deps: { log: Logger }, config: Config): Promise<AdminClient> {
    const socketPath = adminSocket(config)
    const client = new Client('http://localhost', { socketPath })
    const scope = new Scope()
    try {
      if (!(await isAnswered(client))) scope.use(await openMaintenance(deps, config))
      // Last in, first out: the client goes before the server that it talks to.
      scope.defer(() => client.close())
      return new AdminClient(client, scope)
    } catch (error: unknown) {
      await client.destroy()
      throw error
    }
  }

  /** One JSON answer. Throws what the API refused. */
  async call(method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: object): Promise<unknown> {
    const answer = await this.#request(method, path, body)
    return answer.body.json()
  }

  /** An answer of JSON lines. */
  async *lines(method: 'GET' | 'POST', path: string, body?: object): AsyncGenerator {
    const answer = await this.#request(method, path, body)
    let rest = ''
    for await (const piece of answer.body.setEncoding('utf8') as AsyncIterable<string>) {
      const lines = (rest + piece).split('\n')
      rest = lines.pop() ?? ''
      if (rest.length > MAX_LINE_BYTES) throw new ShoalError('ERR_LIMIT_EXCEEDED', 'the admin API sent an endless line')
      for (const line of lines) yield JSON.parse(line) as unknown
    }
  }

  close(): Promise<void> {
    return this.#scope.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #request(
    method: 'GET' | 'PUT' | 'POST' | 'DELETE',
    path: string,
    body?: object,
  ): Promise<Dispatcher.ResponseData> {
    const answer = await this.#client.request({
      path,
      method,
      // Verifying a large store takes as long as it takes.
      bodyTimeout: 0,
      headersTimeout: 0,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    })
    if (answer.statusCode < 300) return answer
    const refused = (await answer.body.json()) as { error?: string; message?: string }
    throw new ShoalError(errorCodeOr(refused.error), refused.message ?? `the admin API answered ${answer.statusCode}`)
  }
}

/** Whether a daemon listens on the socket. Throws what is wrong with one that does not answer as it should. */
async function isAnswered(client: Client): Promise<boolean> {
  try {
    await (await client.request({ path: '/api/v1/status', method: 'GET' })).body.dump()
    return true
  } catch (error: unknown) {
    if (['ENOENT', 'ECONNREFUSED'].includes(systemCode(error) ?? '')) return false
    throw error
  }
}

function errorCodeOr(code: string | undefined): 'ERR_BLOB_UNAVAILABLE' | 'ERR_DIGEST_INVALID' | 'ERR_STORE_IO' {
  return code === 'ERR_DIGEST_INVALID' || code === 'ERR_BLOB_UNAVAILABLE' ? code : 'ERR_STORE_IO'
}
