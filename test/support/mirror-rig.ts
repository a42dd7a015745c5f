import { Registry } from 'prom-client'
import { request, type Dispatcher } from 'undici'
import { silentLogger, type Logger } from '../../src/core/index.ts'
import { Listener, Mirror, createHttpMetrics } from '../../src/http/index.ts'
import { REGISTRY, Rig, type RigOptions } from './rig.ts'

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Buffer
}

/** A mirror listener of ours on a free port, in front of a Rig that knows one registry, `registry.test`. */
export async function openMirror(options: RigOptions & { accessLog?: boolean } = {}) {
  const rig = await Rig.open(options)
  const log: Logger = options.log ?? silentLogger
  const metrics = createHttpMetrics(new Registry(), () => 0)
  const mirror = new Mirror(
    { reader: rig.reader, manifests: rig.manifests, sources: rig.sources, metrics, log },
    { defaultRegistry: REGISTRY, accessLog: options.accessLog ?? false },
  )
  const listener = await Listener.open(mirror.handle, { address: { kind: 'tcp', host: '127.0.0.1', port: 0 } })
  const url = `http://${listener.address}`
  return {
    rig,
    listener,
    url,
    async fetch(
      path: string,
      init: { method?: Dispatcher.HttpMethod; headers?: Record<string, string>; body?: string } = {},
    ): Promise<Answer> {
      const answer = await request(`${url}${path}`, init)
      return { status: answer.statusCode, headers: answer.headers, body: Buffer.from(await answer.body.arrayBuffer()) }
    },
    async [Symbol.asyncDispose]() {
      await listener.close()
      await rig.close()
    },
  }
}
