import type fs from 'node:fs/promises'
import { SystemError } from './system-error.ts'

/** Bytes and pieces that go into one system call; IOV_MAX is 1024. */
const MAX_BATCH_BYTES = 4 * 1024 * 1024
const MAX_BATCH_PIECES = 1000

interface Job {
  readonly pieces: readonly Uint8Array[]
  readonly position: number
  readonly end: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/**
 * The writes of one file, one system call at a time; what has come meanwhile and follows on goes into the next one together. Several
 * threads that write to one file would only spin on the kernel's lock of it.
 */
export class WriteQueue {
  readonly #handle: Pick<fs.FileHandle, 'writev'>
  #waiting: Job[] = []
  #running = false

  constructor(handle: Pick<fs.FileHandle, 'writev'>) {
    this.#handle = handle
  }

  /** Resolves when the bytes are written. A failure rejects every write that shared the call; some of their bytes may be on the disk. */
  write(pieces: readonly Uint8Array[], position: number): Promise<void> {
    const end = pieces.reduce((sum, piece) => sum + piece.byteLength, position)
    return new Promise((resolve, reject) => {
      this.#waiting.push({ pieces: pieces.filter(piece => piece.byteLength > 0), position, end, resolve, reject })
      // Never rejects: each job hears of its own failure.
      if (!this.#running) void this.#run()
    })
  }

  async #run(): Promise<void> {
    this.#running = true
    for (let batch = this.#take(); batch !== undefined; batch = this.#take()) {
      try {
        await writeAll(
          this.#handle,
          batch.jobs.flatMap(job => job.pieces),
          batch.position,
        )
        for (const job of batch.jobs) job.resolve()
      } catch (error: unknown) {
        for (const job of batch.jobs) job.reject(error)
      }
    }
    this.#running = false
  }

  /** The oldest job, and those that continue it. */
  #take(): { position: number; jobs: Job[] } | undefined {
    const first = this.#waiting.shift()
    if (first === undefined) return undefined
    const jobs = [first]
    let { end } = first
    let pieces = first.pieces.length
    for (;;) {
      const index = this.#waiting.findIndex(job => job.position === end)
      const next = this.#waiting[index]
      if (next === undefined || next.end - first.position > MAX_BATCH_BYTES) break
      pieces += next.pieces.length
      if (pieces > MAX_BATCH_PIECES) break
      this.#waiting.splice(index, 1)
      jobs.push(next)
      ;({ end } = next)
    }
    return { position: first.position, jobs }
  }
}

async function writeAll(
  handle: Pick<fs.FileHandle, 'writev'>,
  pieces: readonly Uint8Array[],
  position: number,
): Promise<void> {
  let rest = pieces
  let at = position
  while (rest.length > 0) {
    const { bytesWritten } = await handle.writev(rest, at)
    // A regular file that takes nothing without an error would be asked for ever.
    if (bytesWritten === 0) throw new SystemError('writev', 'EIO')
    at += bytesWritten
    rest = skipBytes(rest, bytesWritten)
  }
}

/** What is left of `pieces` behind their first `bytes` bytes. */
function skipBytes(pieces: readonly Uint8Array[], bytes: number): readonly Uint8Array[] {
  let skip = bytes
  for (const [index, piece] of pieces.entries()) {
    if (skip < piece.byteLength) return [piece.subarray(skip), ...pieces.slice(index + 1)]
    skip -= piece.byteLength
  }
  return []
}
