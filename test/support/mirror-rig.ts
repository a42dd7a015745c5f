import net from 'node:net'
import { Registry } from 'prom-client'
import { request, type Dispatcher } from 'undici'
import type { OpenBlob } from '../../src/blobs/index.ts'
import { silentLogger, type Logger } from '../../src/core/index.ts'
import {
  BlobRoute,
  Listener,
  Mirror,
  createHttpMetrics,
  type MirrorDeps,
  type MirrorOptions,
} from '../../src/http/index.ts'
import { REGISTRY, Rig, type RigOptions } from './rig.ts'

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Buffer
}

export interface MirrorRigOptions extends RigOptions, Partial<MirrorOptions> {
  /** More names under which the rig's origin is known. */
  readonly registries?: readonly string[]
  readonly proxy?: MirrorDeps['proxy']
}

/** A mirror listener of ours on a free port, in front of a Rig that knows one registry, `registry.test`. */
export async function openMirror(options: MirrorRigOptions = {}) {
  const rig = await Rig.open(options)
  const registries = new Set([REGISTRY, ...(options.registries ?? [])])
  rig.sources.origin = name => (registries.has(name) ? rig.origin : undefined)
  rig.sources.forBlob = ({ registry }) => (registries.has(registry) ? [...(options.sources ?? []), rig.origin] : [])
  const log: Logger = options.log ?? silentLogger
  const counts = new Registry()
  const metrics = createHttpMetrics(counts, () => 0)
  const blobs = new BlobRoute({ reader: rig.reader, metrics, log })
  const { manifests, sources } = rig
  const mirror = new Mirror(
    { blobs, manifests, sources, proxy: options.proxy, metrics, log },
    {
      defaultRegistry: options.defaultRegistry ?? REGISTRY,
      hosts: options.hosts ?? {},
      blobs: options.blobs ?? [],
      accessLog: options.accessLog ?? false,
    },
  )
  const listener = await Listener.open(mirror.handle, { address: { kind: 'tcp', host: '127.0.0.1', port: 0 } })
  const url = `http://${listener.address}`
  return {
    rig,
    mirror,
    blobs,
    listener,
    url,
    port: Number(new URL(url).port),
    counts,
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

/** Sends exactly these bytes, which have to ask for the connection's end, and returns what came back until it was closed. */
export async function exchange(where: net.NetConnectOpts, bytes: string): Promise<string> {
  const socket = net.connect(where)
  const received: Buffer[] = []
  socket.write(bytes)
  for await (const piece of socket as AsyncIterable<Buffer>) received.push(piece)
  return Buffer.concat(received).toString('latin1')
}

/** The same blob, as an object whose methods can be replaced. */
export function viewOf(open: OpenBlob): OpenBlob {
  return {
    size: open.size,
    mediaType: open.mediaType,
    state: open.state,
    missing: open.missing.bind(open),
    readNow: open.readNow.bind(open),
    canSendNow: open.canSendNow.bind(open),
    sendNow: open.sendNow.bind(open),
    read: open.read.bind(open),
    hold: open.hold.bind(open),
    touch: open.touch.bind(open),
  }
}
