import type { Clock } from '../../core/index.ts'
import type { UpstreamMetrics } from '../metrics.ts'
import { bodyError } from '../net/failures.ts'
import { discard, drain, headerOf } from '../net/transport.ts'
import type { BlobClient } from '../registry/blobs.ts'
import type { RegistryRequest, RegistryResponse } from '../registry/registry-client.ts'
import { Retries } from '../registry/retry.ts'
import type { ObjectAnswer, ObjectServer, ObjectVersion, RequestOptions } from './object-server.ts'

export interface ObjectSessionDeps {
  readonly server: ObjectServer
  readonly clock: Clock
  readonly metrics: UpstreamMetrics
  /** Whether the server ignored Range lately, and is not to be asked for one. */
  readonly isRangeless: () => boolean
  readonly ignoresRange: (host: string) => void
}

/**
 * All requests that one read of one object takes. The first answer fixes which object that is: one that was replaced under the same name
 * in between is noticed, not mixed in.
 */
export class ObjectSession implements BlobClient {
  readonly #deps: ObjectSessionDeps
  readonly #hex: string
  readonly #retries: number
  #version: ObjectVersion | undefined

  constructor(deps: ObjectSessionDeps, options: { readonly hex: string; readonly retries: number }) {
    this.#deps = deps
    this.#hex = options.hex
    this.#retries = options.retries
  }

  get base(): URL {
    return this.#deps.server.base
  }

  retries(): Retries {
    return new Retries(this.#deps, { retries: this.#retries })
  }

  ignoresRange(host: string): void {
    this.#deps.ignoresRange(host)
  }

  /** Throws ERR_UPSTREAM_BODY when the object is another than before, and what ObjectServer.send throws. */
  async send(request: RegistryRequest, { signal }: RequestOptions = {}): Promise<RegistryResponse> {
    const { bulk, method, range } = request
    const ranged = range !== undefined && !this.#deps.isRangeless()
    const answer = await this.#deps.server.send(
      { method, hex: this.#hex, range: ranged ? range : undefined, version: this.#version, bulk: bulk ?? false },
      signal === undefined ? {} : { signal },
    )
    this.#checkVersion(answer)
    return { ...answer, ranged, forget: () => undefined }
  }

  #checkVersion({ body, headers, host, status }: ObjectAnswer): void {
    const before = this.#version?.host === host ? this.#version.etag : undefined
    if (status === 412 && before !== undefined) {
      drain(body)
      throw replacedError(host)
    }
    if (status !== 200 && status !== 206) return
    const etag = strongTag(headerOf(headers, 'etag'))
    if (etag === undefined || etag === before) return
    if (before !== undefined) {
      discard(body)
      throw replacedError(host)
    }
    this.#version = { host, etag }
  }
}

/** Weak ones do not tell bytes apart, and If-Match never matches them (RFC 9110, 8.8.1 and 13.1.1). */
function strongTag(etag: string | undefined): string | undefined {
  return etag !== undefined && /^"[^"]*"$/.test(etag) ? etag : undefined
}

function replacedError(host: string): Error {
  return bodyError(host, 'has replaced the object since it was first asked for', { replaced: true })
}
