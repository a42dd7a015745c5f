import { crc32 } from 'node:zlib'
import {
  BLOCK_BYTES,
  BLOCKS_PER_CHUNK,
  blockLength,
  blocksOf,
  bytesOf,
  ShoalError,
  systemCode,
  type BlockRun,
} from '../core/index.ts'
import type { BlobContext } from './blob-context.ts'
import type { BlockMap } from './block-map.ts'
import type { FileRef } from './layout.ts'

/** What is wrong with a block, for the log. */
export type BadBlock = 'crc32 mismatch' | 'file too short' | 'read failed'

export interface BlockReaderDeps {
  readonly context: BlobContext
  readonly map: BlockMap
  /** The block must be dropped. */
  readonly onBad: (block: number, reason: BadBlock, error?: unknown) => void
  /** The data file is not there at all. */
  readonly onLost: () => void
  /** The blob is dead: nothing of it is here any more. */
  readonly isGone: () => boolean
}

/** A block may go bad or be dropped while a read is under way; after so many attempts the range counts as not readable. */
const ATTEMPTS = 3

/** Trouble with this process or machine, not with the bytes: nothing is dropped for it. */
const NOT_THE_DISK = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'EACCES', 'EAGAIN', 'EINTR'])

/** Whether an error says nothing about the bytes on the disk. */
export function isNotTheDisk(error: unknown): boolean {
  return NOT_THE_DISK.has(systemCode(error) ?? '')
}

/** Reads blocks of one blob in the thread pool and never lets an unchecked byte out. */
export class BlockReader {
  readonly #deps: BlockReaderDeps
  readonly #ref: FileRef
  readonly #size: number

  constructor(deps: BlockReaderDeps, options: { ref: FileRef; size: number }) {
    this.#deps = deps
    this.#ref = options.ref
    this.#size = options.size
  }

  /** Undefined: not all of it is here. Throws ERR_STORE_IO when all of it is, and cannot be read now. */
  async read(position: number, length: number): Promise<Uint8Array | undefined> {
    const { map } = this.#deps
    const run = blocksOf({ start: position, end: position + length })
    let cause: unknown
    for (let attempt = 0; attempt < ATTEMPTS && this.#isHere(run); attempt += 1) {
      const drops = map.drops
      try {
        const bytes = this.#allChecked(run)
          ? await this.#readChecked(run, position, length)
          : await this.#readAndCheck(run, position, length)
        // A block that was dropped meanwhile may have been half rewritten when it was read.
        if (bytes !== undefined && map.drops === drops) return bytes
      } catch (error: unknown) {
        cause = error
      }
    }
    if (!this.#isHere(run)) return undefined
    const { digest } = this.#ref
    throw new ShoalError('ERR_STORE_IO', `bytes ${position} + ${length} of ${digest} are here and cannot be read`, {
      ...(cause === undefined ? {} : { cause }),
      details: { digest, position, length },
    })
  }

  /** Reads one present block and compares its crc32; `onBad` hears of a bad one. False: bad, or not readable. */
  async inspect(block: number): Promise<boolean> {
    const target = Buffer.allocUnsafeSlow(blockLength(block, this.#size))
    try {
      const read = await this.#fill(target, block * BLOCK_BYTES)
      return read !== undefined && this.#check(block, target.subarray(0, read.bytes), read.error)
    } catch (err: unknown) {
      this.#deps.context.log.warn({ err, digest: this.#ref.digest }, 'data file not readable')
      return false
    }
  }

  #isHere(run: BlockRun): boolean {
    return !this.#deps.isGone() && this.#deps.map.missing(run).length === 0
  }

  #allChecked({ first, end }: BlockRun): boolean {
    for (let block = first; block < end; block += 1) if (!this.#deps.map.isChecked(block)) return false
    return true
  }

  async #readChecked(run: BlockRun, position: number, length: number): Promise<Uint8Array | undefined> {
    const { memory, metrics } = this.#deps.context
    const target = Buffer.allocUnsafeSlow(length)
    if (this.#copyFromMemory(run, position, target)) {
      metrics.readFromMemory.inc(run.end - run.first)
      return target
    }
    const read = await this.#fill(target, position)
    if (read === undefined) return undefined
    if (read.bytes === length) {
      metrics.readFromDisk.inc(run.end - run.first)
      return target
    }
    for (let block = run.first; block < run.end; block += 1) {
      memory.drop(this.#ref.id, block)
      if (this.#deps.map.has(block)) await this.inspect(block)
    }
    return undefined
  }

  async #readAndCheck(run: BlockRun, position: number, length: number): Promise<Uint8Array | undefined> {
    const { map, context } = this.#deps
    const span = bytesOf(run, this.#size)
    const target = Buffer.allocUnsafeSlow(span.end - span.start)
    const read = await this.#fill(target, span.start)
    if (read === undefined) return undefined
    let good = true
    for (let block = run.first; block < run.end; block += 1) {
      if (!map.has(block)) return undefined
      const start = block * BLOCK_BYTES - span.start
      const end = Math.min(start + blockLength(block, this.#size), read.bytes)
      // Blocks behind a failed one were not read with it; each gets a chance of its own.
      if (read.error !== undefined) good = (await this.inspect(block)) && good
      else good = this.#check(block, target.subarray(Math.min(start, end), end)) && good
      if ((block - run.first) % BLOCKS_PER_CHUNK === BLOCKS_PER_CHUNK - 1) await new Promise(setImmediate)
    }
    if (!good || read.error !== undefined) return undefined
    context.metrics.readFromDisk.inc(run.end - run.first)
    return target.subarray(position - span.start, position - span.start + length)
  }

  #check(block: number, bytes: Uint8Array, error?: unknown): boolean {
    const { map, onBad } = this.#deps
    if (error !== undefined) onBad(block, 'read failed', error)
    else if (bytes.byteLength < blockLength(block, this.#size)) onBad(block, 'file too short')
    else if (crc32(bytes) !== map.crc(block)) onBad(block, 'crc32 mismatch')
    else {
      map.setChecked(block)
      return true
    }
    return false
  }

  #copyFromMemory({ first, end }: BlockRun, position: number, target: Uint8Array): boolean {
    const { memory } = this.#deps.context
    for (let block = first; block < end; block += 1) {
      const start = Math.max(position, block * BLOCK_BYTES)
      const stop = Math.min(position + target.byteLength, (block + 1) * BLOCK_BYTES)
      const part = target.subarray(start - position, stop - position)
      if (!memory.copy(this.#ref.id, block, start - block * BLOCK_BYTES, part)) return false
    }
    return true
  }

  /** Undefined: there is no file. `error`: the disk failed to deliver the bytes. Throws where nothing can be said about them. */
  async #fill(target: Uint8Array, position: number): Promise<{ bytes: number; error?: unknown } | undefined> {
    const { context, onLost } = this.#deps
    try {
      return { bytes: await context.files.read(this.#ref, target, position) }
    } catch (error: unknown) {
      if (isNotTheDisk(error)) throw error
      if (systemCode(error) !== 'ENOENT') return { bytes: 0, error }
      onLost()
      return undefined
    }
  }
}
