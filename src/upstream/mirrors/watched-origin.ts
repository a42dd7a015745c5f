import {
  ShoalError,
  type BegunBlob,
  type BlobInfo,
  type BlobKey,
  type BlobSource,
  type ByteRange,
  type Clock,
  type ListingAnswer,
  type ListingRequest,
  type Manifest,
  type ManifestInfo,
  type ManifestKey,
  type ManifestOptions,
  type Origin,
  type SourceOptions,
} from '../../core/index.ts'
import { StallWatch, type StallWatchDeps } from './stall-watch.ts'
import { WatchedBody } from './watched-body.ts'
import { WatchedCall } from './watched-call.ts'

export type ClosableOrigin = Origin & { close(): Promise<void> }

type Begin = NonNullable<BlobSource['begin']>

export interface WatchedDeps extends Pick<StallWatchDeps, 'ping'> {
  readonly clock: Clock
  /** Speaks to the host. Owned: closed with this. */
  readonly inner: ClosableOrigin
  /** Called once for all that a hang ends, before it ends. */
  readonly onHung: (error: ShoalError) => void
  /** Of bodies of blobs, as they are handed on. */
  readonly onBytes?: (bytes: number) => void
  /** A body broke off, and not because its reader had left. */
  readonly onBodyFailure?: (error: unknown) => void
}

/**
 * An origin at one host, asked as if it were the inner one. When the host hangs, everything under way there, attempts that were still to
 * come included, ends within about two seconds with ERR_UPSTREAM_TIMEOUT and `{ hung: true }`.
 */
export class WatchedOrigin implements Origin {
  readonly name: string
  readonly begin?: Begin
  readonly #deps: WatchedDeps
  readonly #inner: ClosableOrigin
  readonly #host: string
  readonly #watch: StallWatch
  readonly #calls = new Set<WatchedCall>()

  /** `host` is for people. */
  constructor(deps: WatchedDeps, options: { readonly host: string }) {
    const { clock, inner, ping } = deps
    this.name = inner.name
    this.#deps = deps
    this.#inner = inner
    this.#host = options.host
    this.#watch = new StallWatch({ clock, ping, onHung: () => this.#hangs() })
    const begin = inner.begin?.bind(inner)
    if (begin !== undefined) this.begin = (key, range, asked = {}) => this.#begin(begin, key, range, asked)
  }

  stat(key: BlobKey, options: SourceOptions = {}): Promise<BlobInfo | undefined> {
    return this.#ask(options, inner => this.#inner.stat(key, inner))
  }

  async open(
    key: BlobKey,
    range: ByteRange,
    options: SourceOptions = {},
  ): Promise<AsyncIterable<Uint8Array> | undefined> {
    const { answer, call } = await this.#start(options, inner => this.#inner.open(key, range, inner))
    return answer === undefined ? undefined : this.#bodyOf(call, answer)
  }

  readsWhole(key: BlobKey): boolean {
    return this.#inner.readsWhole?.(key) === true
  }

  statManifest(key: ManifestKey, options: ManifestOptions = {}): Promise<ManifestInfo | undefined> {
    return this.#ask(options, inner => this.#inner.statManifest(key, inner))
  }

  getManifest(key: ManifestKey, options: ManifestOptions = {}): Promise<Manifest | undefined> {
    return this.#ask(options, inner => this.#inner.getManifest(key, inner))
  }

  list(request: ListingRequest, options: SourceOptions = {}): Promise<ListingAnswer> {
    return this.#ask(options, inner => this.#inner.list(request, inner))
  }

  /** Watches no longer, refuses new requests with ERR_CLOSED and waits for those under way. May be called again. */
  async close(): Promise<void> {
    // A closed origin cannot be pinged, which is not to be taken for a host that hangs.
    this.#watch.close()
    await this.#inner.close()
  }

  async #begin(begin: Begin, key: BlobKey, range: ByteRange, options: SourceOptions): Promise<BegunBlob | undefined> {
    const { answer, call } = await this.#start(options, inner => begin(key, range, inner))
    return answer === undefined ? undefined : { ...answer, body: this.#bodyOf(call, answer.body) }
  }

  /** A request whose answer has no body that is read at somebody's pace. */
  async #ask<T>(options: SourceOptions, work: (options: SourceOptions) => Promise<T>): Promise<T> {
    const { answer, call } = await this.#start(options, work)
    call.end()
    return answer
  }

  async #start<T>(
    options: SourceOptions,
    work: (options: SourceOptions) => Promise<T>,
  ): Promise<{ answer: T; call: WatchedCall }> {
    options.signal?.throwIfAborted()
    const call = new WatchedCall({ watch: this.#watch, onEnd: ended => this.#calls.delete(ended) }, options)
    this.#calls.add(call)
    try {
      const answer = await call.wait(() => work({ ...options, signal: call.signal }))
      if (answer === undefined) call.end()
      return { answer, call }
    } catch (error: unknown) {
      call.end()
      throw error
    }
  }

  #bodyOf(call: WatchedCall, pieces: AsyncIterable<Uint8Array>): WatchedBody {
    const { onBodyFailure, onBytes } = this.#deps
    return new WatchedBody({
      call,
      pieces,
      onBytes: bytes => onBytes?.(bytes),
      onFailure: error => onBodyFailure?.(error),
    })
  }

  #hangs(): void {
    const host = this.#host
    const error = new ShoalError('ERR_UPSTREAM_TIMEOUT', `${host} hangs: it sends nothing and answers no ping`, {
      details: { host, hung: true },
    })
    this.#deps.onHung(error)
    for (const call of [...this.#calls]) call.cut(error)
  }
}
