import { once } from 'node:events'
import http from 'node:http'
import path from 'node:path'
import type { Duplex } from 'node:stream'
import tls from 'node:tls'
import { systemClock } from '../../src/core/index.ts'
import { initProxyAuthority } from '../../src/http/index.ts'
import type { Fetched } from './client.ts'
import { startShoal, type ConfigTables, type ShoalProcess } from './shoal.ts'
import { temporaryDirectory } from './tools.ts'

/** Every way in which a client can name the registry that it means. */
export const DIALECTS = ['default', 'ns', 'header', 'host', 'prefix', 'absolute', 'connect'] as const
export type DialectName = (typeof DIALECTS)[number]

/** What is asked for, whatever the dialect. */
export interface Asked {
  readonly repository: string
  /** `blobs/<digest>`, `manifests/<reference>`, `tags/list` ... */
  readonly resource: string
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
}

export interface DialectOptions {
  /** The registry that all dialects mean; the default one. */
  readonly registry: string
  /** Of its own entry. */
  readonly entry: ConfigTables
  /** Repositories whose blobs have a prefix too. */
  readonly repositories: readonly string[]
  /** Laid over the configuration. */
  readonly config?: ConfigTables
  /** Keeps the state for the next daemon. */
  readonly directory?: string
}

/** A daemon that can be asked for one registry in every dialect. */
export class PolyglotShoal implements AsyncDisposable {
  readonly shoal: ShoalProcess
  readonly #registry: string
  readonly #authority: string
  readonly #temporary: AsyncDisposable | undefined
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  #tunnel: Promise<http.Agent> | undefined

  private constructor(parts: {
    shoal: ShoalProcess
    registry: string
    authority: string
    temporary: AsyncDisposable | undefined
  }) {
    this.shoal = parts.shoal
    this.#registry = parts.registry
    this.#authority = parts.authority
    this.#temporary = parts.temporary
  }

  static async start(options: DialectOptions): Promise<PolyglotShoal> {
    const { config = {}, registry, repositories } = options
    const temporary = options.directory === undefined ? await temporaryDirectory('shoal-polyglot') : undefined
    const directory = options.directory ?? temporary?.path ?? ''
    try {
      const certificates = path.join(directory, 'state', 'proxy-ca')
      const { certificate } = await initProxyAuthority({ clock: systemClock }, { directory: certificates, force: true })
      const { registries, mirror, proxy, ...more } = config as Record<string, ConfigTables | undefined>
      const shoal = await startShoal({
        directory,
        config: {
          ...more,
          mirror: {
            listen: ['127.0.0.1:0'],
            default_registry: registry,
            hosts: { 'virtual.test': registry },
            blobs: repositories.map(repository => ({ prefix: prefixOf(repository), origin: registry, repository })),
            ...mirror,
          },
          registries: { [registry]: options.entry, ...registries },
          proxy: { intercept: [registry], ...proxy },
        },
      })
      return new PolyglotShoal({ shoal, registry, authority: certificate, temporary })
    } catch (error: unknown) {
      await temporary?.[Symbol.asyncDispose]()
      throw error
    }
  }

  /** One request in one dialect. Whatever a dialect cannot say (a manifest below a prefix) is asked for as `ns`. */
  async ask(dialect: DialectName, { repository, resource, method = 'GET', headers = {} }: Asked): Promise<Fetched> {
    const plain = `/v2/${repository}/${resource}`
    const registry = this.#registry
    switch (dialect) {
      case 'default':
        return this.#send({ method, path: plain, headers })
      case 'ns':
        return this.#send({ method, path: `${plain}?ns=${registry}`, headers })
      case 'header':
        return this.#send({
          method,
          path: plain,
          headers: { ...headers, 'X-Dragonfly-Registry': `https://${registry}` },
        })
      case 'host':
        return this.#send({ method, path: plain, headers: { ...headers, host: 'virtual.test' } })
      case 'prefix': {
        const hex = /^blobs\/sha256:([0-9a-f]{64})$/.exec(resource)?.[1]
        if (hex === undefined) return this.ask('ns', { repository, resource, method, headers })
        return this.#send({ method, path: `${prefixOf(repository)}/${hex}`, headers })
      }
      case 'absolute':
        return this.#send({ method, path: `http://${registry}${plain}`, headers: { ...headers, host: registry } })
      case 'connect': {
        this.#tunnel ??= this.#openTunnel()
        return exchanged({ method, path: plain, headers: { ...headers, host: registry }, agent: await this.#tunnel })
      }
    }
  }

  /** One request to the mirror's address, as it is. */
  send(request: { method?: string; path: string; headers?: Readonly<Record<string, string>> }): Promise<Fetched> {
    return this.#send({ method: 'GET', headers: {}, ...request })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy()
    await this.#tunnel?.then(
      agent => agent.destroy(),
      () => undefined,
    )
    await this.shoal[Symbol.asyncDispose]()
    await this.#temporary?.[Symbol.asyncDispose]()
  }

  #send(request: { method: string; path: string; headers: Readonly<Record<string, string>> }): Promise<Fetched> {
    const { hostname, port } = new URL(this.shoal.mirror)
    return exchanged({ ...request, hostname, port, agent: this.#agent })
  }

  /** A CONNECT, and TLS inside it under the node's own authority; all requests go through this one connection. */
  async #openTunnel(): Promise<http.Agent> {
    const { response, socket } = await connectThrough(this.shoal.mirror, `${this.#registry}:443`)
    if (response.statusCode !== 200) throw new Error(`CONNECT was answered with ${String(response.statusCode)}`)
    const secured = tls.connect({ socket, servername: this.#registry, ca: this.#authority })
    await once(secured, 'secureConnect')
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    agent.createConnection = () => secured
    return agent
  }
}

export function prefixOf(repository: string): string {
  return `/prefix/${repository}`
}

/** Asks a proxy for a tunnel. The socket is the caller's to end. */
export async function connectThrough(
  proxy: string,
  target: string,
): Promise<{ response: http.IncomingMessage; socket: Duplex }> {
  const { hostname, port } = new URL(proxy)
  const request = http.request({ hostname, port, method: 'CONNECT', path: target, headers: { host: target } }).end()
  const [response, socket] = (await once(request, 'connect')) as [http.IncomingMessage, Duplex]
  return { response, socket }
}

async function exchanged(options: http.RequestOptions): Promise<Fetched> {
  const request = http.request(options).end()
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  const pieces: Buffer[] = []
  for await (const piece of response as AsyncIterable<Buffer>) pieces.push(piece)
  return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(pieces) }
}
