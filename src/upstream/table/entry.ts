import type { BlobSource, Digest, Origin, ShoalError } from '../../core/index.ts'
import type { MirrorState } from '../mirrors/index.ts'
import type { AddressFilter } from '../net/addresses.ts'
import type { TlsConnectOptions } from '../net/tls.ts'
import type { VisibilityPolicy } from '../options.ts'

/** How to reach the server behind a name of the table, for requests that are passed on as they are. */
export interface EgressTarget {
  /** Where /v2/ is. */
  readonly base: URL
  readonly tls: TlsConnectOptions
  /** Which addresses of it may be connected to. Absent: all. */
  readonly addresses?: AddressFilter | undefined
}

/** One registry and what stands before it, for people and programs. */
export interface RegistryState {
  readonly name: string
  /** host:port of the registry itself. */
  readonly host: string
  readonly mirrors: readonly MirrorState[]
  readonly proxy?: MirrorState
}

/** What stands behind one name of the table. */
export interface Entry {
  readonly origin: Origin
  /** In the order to try; the origin itself is the last. */
  readonly sources: readonly BlobSource[]
  /** Absent: `auto`. */
  readonly visibility?: VisibilityPolicy
  /** Absent: it is no HTTP server of the registry kind. */
  readonly target?: EgressTarget
  readonly state?: () => RegistryState
  /** See MirroredOrigin. */
  readonly distrust?: (digest: Digest, sources: readonly string[]) => void
  /** Refuses new requests and waits for bodies that are being read. May be called again. */
  readonly close: () => Promise<void>
}

/** How to make an entry. Two plans with the same fingerprint make entries that behave alike. */
export interface EntryPlan {
  readonly fingerprint: string
  /** What is wrong with it: the entry fails everything. */
  readonly broken?: ShoalError
  readonly make: () => Promise<Entry>
}

/** A plan that needs no waiting to become an entry. */
export interface ReadyPlan extends Omit<EntryPlan, 'make'> {
  readonly make: () => Entry
}
