import { formatRangeHeader, ShoalError, type Visibility } from '../../core/index.ts'
import { statusError } from '../net/failures.ts'
import { drain, headerOf, type Transport } from '../net/transport.ts'
import type { ExtraHeaders } from '../options.ts'
import { isRedirect, MAX_REDIRECTS, resolveRedirect } from '../registry/redirects.ts'
import {
  refuseUnavailable,
  type ObjectAnswer,
  type ObjectRequest,
  type ObjectServer,
  type RequestOptions,
} from './object-server.ts'

export interface HttpServerOptions {
  readonly base: URL
  /** Whether each blob is at its hex below `base`; otherwise `base` is whatever blob is asked for. */
  readonly named: boolean
  /** For the host of `base` only, the credential among them. */
  readonly headers: ExtraHeaders
  readonly visibility: Visibility
}

/**
 * Any HTTP server: blobs are files. It may lead to others, which get none of the headers that are meant for it; one behind a socket may not.
 */
export class HttpServer implements ObjectServer {
  readonly #transport: Transport
  readonly #options: HttpServerOptions

  constructor(deps: { readonly transport: Transport }, options: HttpServerOptions) {
    this.#transport = deps.transport
    this.#options = options
  }

  get base(): URL {
    return this.#options.base
  }

  async send(request: ObjectRequest, options: RequestOptions): Promise<ObjectAnswer> {
    const { base, named } = this.#options
    let url = named ? new URL(request.hex, base) : base
    let crossed = false
    for (let hops = 0; ; hops += 1) {
      const answer = await this.#sendOnce(request, url, crossed, options)
      const { body, headers, host, status } = answer
      // What a host says that this one led to is about the URL, not about our rights.
      if (!crossed && (status === 401 || status === 403)) {
        drain(body)
        throw new ShoalError('ERR_UPSTREAM_AUTH', `${host} refused with ${status}`, { details: { host, status } })
      }
      if (!isRedirect(status)) return answer
      drain(body)
      if (hops === MAX_REDIRECTS) throw statusError(host, status)
      const next = resolveRedirect(url, status, headerOf(headers, 'location'), { registry: base })
      crossed ||= next.origin !== base.origin
      // Who may answer on a socket has no say in where this node connects to.
      if (crossed && !named) throw statusError(host, status)
      url = next
    }
  }

  close(): Promise<void> {
    return this.#transport.close()
  }

  async #sendOnce(
    { bulk, method, range, version }: ObjectRequest,
    url: URL,
    crossed: boolean,
    { signal }: RequestOptions,
  ): Promise<ObjectAnswer> {
    const response = await this.#transport.send(url, {
      method,
      bulk,
      headers: {
        ...(crossed ? {} : this.#options.headers),
        'accept-encoding': 'identity',
        ...(range === undefined ? {} : { range: formatRangeHeader(range) }),
        ...(version?.host === url.host ? { 'if-match': version.etag } : {}),
      },
      signal,
    })
    refuseUnavailable(response, url.host)
    return { ...response, host: url.host, visibility: this.#options.visibility }
  }
}
