import { createHash } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import { MANIFEST_TYPE, type Descriptor } from './image.ts'

/** What containerd does, too: this many layers at once. */
const PARALLEL = 3

export interface PullOptions {
  /** `http://127.0.0.1:<port>` of the mirror. */
  readonly mirror: string
  /** The name of the origin, sent as `?ns=`. */
  readonly registry: string
  readonly repository: string
  readonly tag: string
  readonly onProgress: (bytes: number) => void
  readonly signal: AbortSignal
}

/** One thing that was pulled, and whose sha256 was what its name says. */
export interface Pulled {
  readonly what: string
  readonly bytes: number
  readonly firstByteMs: number
  readonly totalMs: number
  /** The X-Cache and Server-Timing headers; undefined for an answer without. */
  readonly cache: string | undefined
  readonly timing: string | undefined
}

export interface Pull {
  /** The manifest, the config and the layers. */
  readonly pulled: readonly Pulled[]
  readonly elapsedMs: number
}

interface Answer extends Pulled {
  readonly digest: string
  readonly body: Buffer | undefined
}

/** Pulls one image as a runtime does: the manifest by its tag, then the config and the layers. Throws when a byte is wrong. */
export async function pullImage(options: PullOptions): Promise<Pull> {
  const started = performance.now()
  const agent = new http.Agent({ keepAlive: true, maxSockets: PARALLEL })
  try {
    const manifest = await get(agent, options, `manifests/${options.tag}`, { what: 'manifest', keep: true })
    const { config, layers } = parseManifest(manifest.body)
    const wanted = [
      { what: 'config', descriptor: config },
      ...layers.map((descriptor, index) => ({ what: `layer ${index + 1}`, descriptor })),
    ]
    const pulled: Pulled[] = [manifest]
    const queue = wanted.values()
    const fetchNext = async (): Promise<void> => {
      for (const { what, descriptor } of queue) {
        const answer = await get(agent, options, `blobs/${descriptor.digest}`, { what, keep: false })
        if (answer.digest !== descriptor.digest || answer.bytes !== descriptor.size) {
          throw new Error(`${what} is not ${descriptor.digest}: got ${answer.bytes} bytes of ${answer.digest}`)
        }
        pulled.push(answer)
      }
    }
    await Promise.all(Array.from({ length: PARALLEL }, fetchNext))
    const elapsedMs = performance.now() - started
    const order = ['manifest', ...wanted.map(({ what }) => what)]
    return { elapsedMs, pulled: pulled.toSorted((a, b) => order.indexOf(a.what) - order.indexOf(b.what)) }
  } finally {
    agent.destroy()
  }
}

async function get(
  agent: http.Agent,
  options: PullOptions,
  resource: string,
  { what, keep }: { what: string; keep: boolean },
): Promise<Answer> {
  const url = new URL(`/v2/${options.repository}/${resource}?ns=${options.registry}`, options.mirror)
  const started = performance.now()
  const request = http.get(url, { agent, signal: options.signal, headers: { accept: `${MANIFEST_TYPE}, */*` } })
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  if (response.statusCode !== 200) throw new Error(`${what}: the mirror answered ${String(response.statusCode)}`)
  const hash = createHash('sha256')
  const kept: Buffer[] = []
  let bytes = 0
  let firstByteMs: number | undefined
  for await (const piece of response as AsyncIterable<Buffer>) {
    firstByteMs ??= performance.now() - started
    hash.update(piece)
    bytes += piece.length
    if (keep) kept.push(piece)
    options.onProgress(piece.length)
  }
  const totalMs = performance.now() - started
  const { 'x-cache': cache, 'server-timing': timing } = response.headers
  return {
    what,
    bytes,
    firstByteMs: firstByteMs ?? totalMs,
    totalMs,
    cache: typeof cache === 'string' ? cache : undefined,
    timing: typeof timing === 'string' ? timing : undefined,
    digest: `sha256:${hash.digest('hex')}`,
    body: keep ? Buffer.concat(kept) : undefined,
  }
}

function parseManifest(body: Buffer | undefined): { config: Descriptor; layers: readonly Descriptor[] } {
  return JSON.parse(body?.toString() ?? '') as { config: Descriptor; layers: readonly Descriptor[] }
}
