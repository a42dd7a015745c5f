import { formatRangeHeader } from '../../core/index.ts'
import { discard, drain, type Transport } from '../net/transport.ts'
import type { BucketCredentials, BucketCredentialSource } from './bucket-credentials.ts'
import type { BucketPlace } from './bucket-place.ts'
import { bucketError, isAbsent, isStale, readBucketRefusal } from './bucket-refusal.ts'
import {
  refuseUnavailable,
  type ObjectAnswer,
  type ObjectRequest,
  type ObjectServer,
  type RequestOptions,
} from './object-server.ts'

/** The headers that prove the right of `credentials` to one request. */
export type SignRequest = (
  request: { readonly method: string; readonly url: URL },
  credentials: BucketCredentials,
) => Promise<Readonly<Record<string, string>>>

export interface BucketServerDeps {
  readonly transport: Pick<Transport, 'close' | 'send'>
  readonly place: BucketPlace
  readonly credentials: BucketCredentialSource
  readonly sign: SignRequest
}

/** A bucket of S3 or of something like it. Redirects are not followed: a signature is for one host. */
export class BucketServer implements ObjectServer {
  readonly #deps: BucketServerDeps
  readonly #bucket: string

  constructor(deps: BucketServerDeps, options: { readonly bucket: string }) {
    this.#deps = deps
    this.#bucket = options.bucket
  }

  get base(): URL {
    return this.#deps.place.base
  }

  async send(request: ObjectRequest, options: RequestOptions): Promise<ObjectAnswer> {
    const source = this.#deps.credentials
    let credentials = await source.get(options)
    for (let renewed = false; ; renewed = true) {
      const answer = await this.#sendAs(credentials, request, options)
      if (!isRefusal(answer)) return answer
      const refused = request.method === 'HEAD' ? await this.#spelledOut(answer, credentials, request, options) : answer
      if (refused === undefined) return answer
      const refusal = await readBucketRefusal(refused, options)
      if (isAbsent(refusal)) return refused
      const signed = credentials !== undefined
      const others = !renewed && isStale(refusal, { signed }) ? await source.renew(credentials, options) : undefined
      if (others === undefined) throw bucketError(refusal, { bucket: this.#bucket, signed })
      credentials = others
    }
  }

  close(): Promise<void> {
    return this.#deps.transport.close()
  }

  /** An answer to HEAD has no document that says why; one to GET has. Undefined: GET is not refused. */
  async #spelledOut(
    head: ObjectAnswer,
    credentials: BucketCredentials | undefined,
    request: ObjectRequest,
    options: RequestOptions,
  ): Promise<ObjectAnswer | undefined> {
    const answer = await this.#sendAs(credentials, { ...request, method: 'GET', range: { start: 0, end: 1 } }, options)
    if (isRefusal(answer)) {
      drain(head.body)
      return answer
    }
    discard(answer.body)
    return undefined
  }

  async #sendAs(
    credentials: BucketCredentials | undefined,
    { bulk, hex, method, range, version }: ObjectRequest,
    { signal }: RequestOptions,
  ): Promise<ObjectAnswer> {
    const { place, sign, transport } = this.#deps
    const url = place.urlOf(hex)
    const response = await transport.send(url, {
      method,
      bulk,
      headers: {
        'accept-encoding': 'identity',
        ...(range === undefined ? {} : { range: formatRangeHeader(range) }),
        ...(version === undefined ? {} : { 'if-match': version.etag }),
        ...(credentials === undefined ? {} : await sign({ method, url }, credentials)),
      },
      signal,
    })
    refuseUnavailable(response, url.host)
    return { ...response, host: url.host, visibility: credentials === undefined ? 'public' : 'shared' }
  }
}

/** 412 and 416 are answers to what was asked, not refusals of who asked. */
function isRefusal({ status }: ObjectAnswer): boolean {
  return status >= 300 && status !== 412 && status !== 416
}
