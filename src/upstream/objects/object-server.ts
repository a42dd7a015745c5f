import type { ByteRange, Visibility } from '../../core/index.ts'
import { statusError } from '../net/failures.ts'
import { drain, headerOf, type TransportResponse } from '../net/transport.ts'

export interface RequestOptions {
  readonly signal?: AbortSignal
}

/** Which bytes an object had when it was first asked for: a strong ETag, and whose. */
export interface ObjectVersion {
  readonly host: string
  readonly etag: string
}

export interface ObjectRequest {
  readonly method: 'GET' | 'HEAD'
  /** The hex of the blob's digest, by which the server knows the object. */
  readonly hex: string
  readonly range?: ByteRange | undefined
  /** Sent as If-Match to the host that it is of. */
  readonly version?: ObjectVersion | undefined
  /** The body is read at a reader's pace. */
  readonly bulk: boolean
}

/** The body is to be read, drained or discarded. 404: there is no such object. */
export interface ObjectAnswer extends TransportResponse {
  /** Who answered in the end. */
  readonly host: string
  readonly visibility: Visibility
}

/** A server of objects, spoken to with the node's own rights. */
export interface ObjectServer {
  readonly base: URL
  /**
   * One attempt. Throws ERR_UPSTREAM_AUTH when the rights do not suffice, ERR_UPSTREAM_STATUS for 429, 5xx (except 501) and redirects that
   * are not followed, and what Transport.send throws.
   */
  send(request: ObjectRequest, options: RequestOptions): Promise<ObjectAnswer>
  /** Refuses new requests with ERR_CLOSED and waits for those under way. May be called again. */
  close(): Promise<void>
}

/** Throws ERR_UPSTREAM_STATUS for answers that say "not now". */
export function refuseUnavailable({ body, headers, status }: TransportResponse, host: string): void {
  if (status !== 429 && (status < 500 || status === 501)) return
  drain(body)
  throw statusError(host, status, headerOf(headers, 'retry-after'))
}
