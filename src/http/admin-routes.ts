import { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { describeError, parseDigest, type Digest } from '../core/index.ts'

export interface VerifyProgress {
  readonly checkedBytes: number
  readonly totalBytes: number
  readonly badBlocks: number
}

/** What the admin API may do to the store. */
export interface CacheAdmin {
  list(): AsyncIterable<object>
  remove(digest: Digest): Promise<number | undefined>
  pin(digest: Digest, pinned: boolean): boolean
  collect(targetBytes?: number): Promise<{ blobs: number; bytes: number }>
  verify(options: {
    digests?: Digest[]
    repair?: boolean
    onProgress?: (progress: VerifyProgress) => void
    signal?: AbortSignal
  }): Promise<object>
  stats(): object
}

export interface AdminDeps {
  readonly cache: CacheAdmin
  /** Facts about the process for `shoal status`. */
  readonly status: () => object
  /** Registries with what stands before them. */
  readonly mirrors: () => { readonly registries: readonly object[] }
}

const DIGEST_PARAMETER = { type: 'object', properties: { digest: { type: 'string' } }, required: ['digest'] } as const

/** /api/v1: what the command line talks to. Lists and progress are JSON lines, so that nothing is collected in memory. */
export function adminRoutes(app: FastifyInstance, { cache, mirrors, status }: AdminDeps): void {
  app.get('/api/v1/status', () => ({ ...status(), store: cache.stats() }))

  app.get('/api/v1/mirrors', () => mirrors())

  app.get('/api/v1/cache/blobs', (_request, reply) => sendLines(reply, cache.list()))

  app.delete<{ Params: { digest: string } }>(
    '/api/v1/cache/blobs/:digest',
    { schema: { params: DIGEST_PARAMETER } },
    async (request, reply) => {
      const freedBytes = await cache.remove(parseDigest(request.params.digest))
      return freedBytes === undefined ? notFound(reply, request.params.digest) : { freedBytes }
    },
  )

  app.put<{ Params: { digest: string }; Body: { pinned: boolean } }>(
    '/api/v1/cache/blobs/:digest/pin',
    {
      schema: {
        params: DIGEST_PARAMETER,
        body: {
          type: 'object',
          properties: { pinned: { type: 'boolean' } },
          required: ['pinned'],
          additionalProperties: false,
        },
      },
    },
    async (request, reply) => {
      const known = cache.pin(parseDigest(request.params.digest), request.body.pinned)
      return known ? { pinned: request.body.pinned } : notFound(reply, request.params.digest)
    },
  )

  app.post<{ Body: { targetBytes?: number } }>(
    '/api/v1/cache/gc',
    {
      schema: {
        body: {
          type: 'object',
          properties: { targetBytes: { type: 'integer', minimum: 0 } },
          additionalProperties: false,
        },
      },
    },
    request => cache.collect(request.body.targetBytes),
  )

  app.post<{ Body: { digests?: string[]; repair?: boolean } }>(
    '/api/v1/cache/verify',
    {
      schema: {
        body: {
          type: 'object',
          properties: { digests: { type: 'array', items: { type: 'string' } }, repair: { type: 'boolean' } },
          additionalProperties: false,
        },
      },
    },
    (request, reply) => {
      const digests = request.body.digests?.map(parseDigest)
      const abort = new AbortController()
      reply.raw.once('close', () => abort.abort(new DOMException('the client has left', 'AbortError')))
      return sendLines(
        reply,
        verifyLines(
          cache,
          { ...(digests === undefined ? {} : { digests }), repair: request.body.repair ?? true },
          abort.signal,
        ),
      )
    },
  )
}

interface Reply {
  type(value: string): Reply
  code(status: number): Reply
  send(body: unknown): unknown
}

function notFound(reply: Reply, digest: string): unknown {
  return reply.code(404).send({ error: 'ERR_BLOB_UNAVAILABLE', message: `${digest} is not in the cache` })
}

function sendLines(reply: Reply, items: AsyncIterable<object>): unknown {
  return reply.type('application/x-ndjson').send(Readable.from(asLines(items)))
}

async function* asLines(items: AsyncIterable<object>): AsyncGenerator<string> {
  for await (const item of items) yield `${JSON.stringify(item)}\n`
}

/** Lines of {progress}, then one of {report}, or of {error} when it failed after it had begun. */
async function* verifyLines(
  cache: CacheAdmin,
  options: { digests?: Digest[]; repair: boolean },
  signal: AbortSignal,
): AsyncGenerator<object> {
  const state: { latest: VerifyProgress | undefined; done: boolean } = { latest: undefined, done: false }
  let wake: (() => void) | undefined
  const outcome = cache
    .verify({
      ...options,
      signal,
      onProgress: progress => {
        state.latest = progress
        wake?.()
      },
    })
    .then(
      report => ({ report }),
      (error: unknown) => ({ error: describeError(error) }),
    )
  // Never rejects: the failure has become a line.
  void outcome.then(() => {
    state.done = true
    wake?.()
  })
  while (!state.done) {
    if (state.latest === undefined) await new Promise<void>(resolve => (wake = resolve))
    const { latest } = state
    state.latest = undefined
    if (latest !== undefined) yield { progress: latest }
  }
  yield await outcome
}
