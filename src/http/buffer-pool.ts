/**
 * Buffers that are used again instead of being allocated for every piece: a fresh one costs more than filling it. At most `keep` are kept;
 * more may be in use at the same time and are left to the garbage collector when given back.
 */
export class BufferPool {
  readonly bytes: number
  readonly #keep: number
  readonly #free: Buffer[] = []

  constructor(options: { bytes: number; keep: number }) {
    this.bytes = options.bytes
    this.#keep = options.keep
  }

  /** A buffer of `bytes` bytes with anything in it. */
  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.bytes)
  }

  /** Only once for each take(), and only when nobody reads the buffer any more. */
  give(buffer: Buffer): void {
    if (this.#free.length < this.#keep) this.#free.push(buffer)
  }
}
