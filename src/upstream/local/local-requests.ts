import { ShoalError, type ByteRange, type SourceOptions } from '../../core/index.ts'
import { createUpstreamMetrics, type OriginKind, type UpstreamMetrics } from '../metrics.ts'
import type { UpstreamDeps } from '../options.ts'

export type LocalKind = Extract<OriginKind, 'oci-layout' | 'localfs' | 'localdisk'>

/** What the origins of this folder have in common: requests are counted and timed, and refused after close(). */
export class LocalRequests {
  /** `<kind>:<name>`. */
  readonly name: string
  readonly #metrics: UpstreamMetrics
  readonly #labels: { readonly origin_kind: LocalKind }
  #closed = false

  constructor(deps: Pick<UpstreamDeps, 'metrics'>, options: { readonly kind: LocalKind; readonly name: string }) {
    this.name = `${options.kind}:${options.name}`
    this.#metrics = createUpstreamMetrics(deps.metrics)
    this.#labels = { origin_kind: options.kind }
  }

  /** For FileRange. */
  readonly received = (bytes: number): void => this.#metrics.bytes.inc(bytes)

  /** Does `work`. Throws the signal's reason, or ERR_CLOSED. */
  async counted<T>(options: SourceOptions, work: () => Promise<T | undefined>): Promise<T | undefined> {
    options.signal?.throwIfAborted()
    if (this.#closed) throw new ShoalError('ERR_CLOSED', `${this.name} is closed`)
    const stop = this.#metrics.duration.startTimer(this.#labels)
    try {
      const result = await work()
      this.#metrics.requests.inc({ ...this.#labels, outcome: result === undefined ? 'absent' : 'success' })
      return result
    } catch (error: unknown) {
      this.#metrics.requests.inc({ ...this.#labels, outcome: options.signal?.aborted === true ? 'aborted' : 'failed' })
      throw error
    } finally {
      stop()
    }
  }

  /** Requests are refused from now on; bodies that were opened can be read to their end. May be called again. */
  close(): void {
    this.#closed = true
  }
}

/** Throws ERR_UPSTREAM_BODY when the blob ends before the range does. */
export function checkWithin(range: ByteRange, { file, size }: { readonly file: string; readonly size: number }): void {
  if (range.end <= size) return
  throw new ShoalError('ERR_UPSTREAM_BODY', `${file} has ${size} bytes, ${range.end} were expected`, {
    details: { file, size },
  })
}
