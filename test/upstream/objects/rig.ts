import { digestHex, type Digest } from '../../../src/core/index.ts'
import type { UpstreamDeps } from '../../../src/upstream/index.ts'
import { openHttpOrigin, openOssOrigin, openS3Origin, type ObjectOrigin } from '../../../src/upstream/objects/index.ts'
import type { BlobContent } from '../../support/generated-blob.ts'
import {
  startScriptedOrigin,
  type Fault,
  type ScriptedOrigin,
  type ScriptedOriginOptions,
  type SeenRequest,
} from '../../support/scripted-origin.ts'
import { DEFAULTS, TestClock, TestLog, testDeps } from '../rig.ts'
import { verifyOss } from './oss-verifier.ts'
import { verifySigV4 } from './sigv4-verifier.ts'

export const KEYS = { accessKeyId: 'AKIDOFTHENODE', secretAccessKey: 'the-secret/key+of-the-node' }
export const REGION = 'eu-test-1'
/** The scripted origin has blobs below /v2/<repository>/blobs/, which a bucket may as well. */
export const BUCKET = 'v2'
export const PREFIX = 'library/test/blobs/'

const { connectTimeoutMs, idleTimeoutMs, maxConnections, name, retries, tls } = DEFAULTS
export const CONNECTION = { connectTimeoutMs, idleTimeoutMs, maxConnections, name, retries, tls }

/** What a server of objects has to say against a request: the code and the status of its error document. */
export interface Objection {
  readonly status: number
  readonly code: string
  /** More elements of the document. */
  readonly more?: string
  readonly headers?: Readonly<Record<string, string>>
}

export interface ObjectRigOptions extends Pick<ScriptedOriginOptions, 'blobs'> {
  readonly fault?: (seen: SeenRequest) => Fault | undefined
  /** Before anything else. */
  readonly object?: (seen: SeenRequest) => Objection | undefined
  readonly etag?: (seen: SeenRequest) => string
  /** Whether If-Match is heeded; default true. */
  readonly ifMatch?: boolean
  readonly clock?: TestClock
}

export interface ObjectRig extends AsyncDisposable {
  readonly origin: ObjectOrigin
  readonly server: ScriptedOrigin
  readonly clock: TestClock
  readonly log: TestLog
  readonly deps: UpstreamDeps
}

/** What differs between the kinds: how to open one in front of `server`, and what the server asks of every request. */
export interface Dialect {
  readonly kind: 's3' | 'oss' | 'http'
  open(deps: UpstreamDeps, server: ScriptedOrigin, more?: object): Promise<ObjectOrigin>
  verify(seen: SeenRequest, clock: TestClock): Objection | undefined
}

export const S3: Dialect = {
  kind: 's3',
  open: (deps, { url }, more) =>
    openS3Origin(deps, {
      ...{ ...CONNECTION, ...KEYS, type: 's3', endpoint: url, bucket: BUCKET, prefix: PREFIX },
      ...{ region: REGION, pathStyle: true, ...more },
    }),
  verify: (seen, clock) => verifySigV4(seen, { ...KEYS, region: REGION, now: clock.now() }),
}

export const OSS: Dialect = {
  kind: 'oss',
  open: (deps, { url }, more) =>
    openOssOrigin(
      { ...deps, env: {} },
      { ...CONNECTION, ...KEYS, type: 'oss', endpoint: url, bucket: BUCKET, prefix: PREFIX, ...more },
    ),
  verify: (seen, clock) => verifyOss(seen, { ...KEYS, resource: decodeURIComponent(seen.path), now: clock.now() }),
}

export const HTTP: Dialect = {
  kind: 'http',
  open: (deps, { url }, more) =>
    openHttpOrigin(deps, { ...CONNECTION, type: 'http', url: `${url}/${BUCKET}/${PREFIX}`, headers: {}, ...more }),
  verify: () => undefined,
}

/** A server that holds every request against the dialect's rules, and an origin in front of it. */
export async function openObjects(
  dialect: Dialect,
  options: ObjectRigOptions = {},
  more: object = {},
): Promise<ObjectRig> {
  const clock = options.clock ?? new TestClock()
  const log = new TestLog()
  const deps = testDeps(clock, log)
  const server = await startScriptedOrigin({ blobs: byHex(options.blobs ?? new Map()) })
  server.fault = seen => {
    const objection =
      options.object?.(seen) ??
      dialect.verify(seen, clock) ??
      (server.blobs.has(seen.reference ?? '') ? undefined : { status: 404, code: 'NoSuchKey' })
    if (objection !== undefined) return asFault(objection)
    const etag = options.etag?.(seen) ?? `"${seen.reference?.slice(0, 32) ?? ''}"`
    const wanted = options.ifMatch === false ? undefined : seen.headers['if-match']
    if (wanted !== undefined && wanted !== etag) return asFault({ status: 412, code: 'PreconditionFailed' })
    const fault = options.fault?.(seen) ?? {}
    return { ...fault, headers: { etag, ...fault.headers } }
  }
  const origin = await dialect.open(deps, server, more)
  return {
    ...{ origin, server, clock, log, deps },
    [Symbol.asyncDispose]: async () => {
      await server.close()
      await origin.close()
    },
  }
}

export function asFault({ code, headers, more = '', status }: Objection): Fault {
  const body = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>no</Message>${more}</Error>`
  return { status, body, headers: { 'content-type': 'application/xml', ...headers } }
}

export function byHex(blobs: ReadonlyMap<string, BlobContent | Uint8Array>): Map<string, BlobContent | Uint8Array> {
  return new Map([...blobs].map(([digest, content]) => [digestHex(digest as Digest), content]))
}

/** The ranges that were asked for, in order; '' for requests without. */
export function rangesSeen({ requests }: ScriptedOrigin, method = 'GET'): string[] {
  return requests.filter(seen => seen.method === method).map(({ headers }) => headers.range ?? '')
}
