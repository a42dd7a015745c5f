import type { Duplex, Readable } from 'node:stream'

/** Where something is to go, and by what right. What the table of registries says of a host, the egress knows itself. */
export interface Permission {
  /** The operator wrote this very host down in a rule: it may be reached wherever it is. */
  readonly trusted: boolean
  /** A rule of the operator's names this URL: the host may be one that no table has. Its addresses are filtered unless it is trusted. */
  readonly allowed: boolean
}

export interface ForwardedRequest extends Permission {
  readonly method: string
  /** http or https, without credentials and fragment. */
  readonly url: URL
  /** Names and values in turn, as the client wrote them, without what belongs to one connection; Host is the URL's. */
  readonly headers: readonly string[]
  /** Undefined: the request has none. */
  readonly body: Readable | undefined
  readonly signal: AbortSignal
}

export interface ForwardedAnswer {
  readonly status: number
  readonly statusText: string
  /** Names and values in turn, as they came. */
  readonly headers: readonly string[]
  /** Errors when it is cut; never ends early. Empty where the answer has none. */
  readonly body: Readable
}

export interface TunnelTarget extends Permission {
  /** A name or an address, without brackets. */
  readonly host: string
  readonly port: number
  readonly signal: AbortSignal
}

/** Outgoing connections of the forward proxy. Safe to call concurrently. */
export interface Egress {
  /**
   * One request, as it is, to where `url` leads; both bodies stream. Redirects are not followed. Resolves when the head of the answer is
   * in; the signal ends the body too. Throws ERR_ORIGIN_UNKNOWN when that place may not be reached, ERR_UPSTREAM_* when it cannot be;
   * aborted: `signal.reason`.
   */
  forward(request: ForwardedRequest): Promise<ForwardedAnswer>
  /** A connection for a tunnel, which must allow to be half closed. The same errors; the signal matters only until it resolves. */
  tunnel(target: TunnelTarget): Promise<Duplex>
}
