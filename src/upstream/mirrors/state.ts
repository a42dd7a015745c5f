/**
 * `healthy`: used. `suspect`: it has failed, and is asked at once whether it is there. `down`: it has failed as often as it may. `paused`:
 * one of these two, and not even asked any longer, because nobody wants it.
 */
export type MirrorStatus = 'healthy' | 'suspect' | 'down' | 'paused'

export type MirrorKind = 'mirror' | 'proxy'

/** `failed`: no connection, or an answer that says so. */
export type PingOutcome = 'answered' | 'timeout' | 'failed'

export interface PingRecord {
  /** Milliseconds since 1970. */
  readonly at: number
  readonly outcome: PingOutcome
}

/** How a mirror or an upstream proxy is doing. Plain JSON, for the admin API. */
export interface MirrorState {
  /** The name that images use. */
  readonly registry: string
  readonly host: string
  readonly kind: MirrorKind
  readonly status: MirrorStatus
  /** Since it last recovered. */
  readonly failures: number
  readonly failureLimit: number
  /** When `status` last changed, in milliseconds since 1970. */
  readonly since: number
  /** Never a path or a query. */
  readonly lastError?: string
  readonly lastPing?: PingRecord
  /** Sent there by this process. */
  readonly requests: number
  /** Of bodies of blobs, received from there by this process. */
  readonly bytes?: number
}
