import Database from 'better-sqlite3'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { systemCode } from '../core/index.ts'
import { SystemError } from './system-error.ts'

/** Work that waits for the disk or the processor for long, done one job after the other on a thread of its own. */
export type DiskJob =
  | {
      readonly id: number
      readonly kind: 'hash'
      readonly fd: number
      readonly size: number
      readonly algorithm: string
    }
  | { readonly id: number; readonly kind: 'sync'; readonly fd: number }
  | { readonly id: number; readonly kind: 'checkpoint'; readonly file: string }

/** `hex` is the hash, '' for the others. */
export type DiskAnswer =
  | { readonly id: number; readonly hex: string }
  | { readonly id: number; readonly code: string; readonly message: string }

export interface DiskWorkerData {
  /** One Int32: not 0 once the work shall stop. */
  readonly stop: SharedArrayBuffer
}

const PIECE_BYTES = 1024 * 1024

/** Attempts to find the write-ahead log at rest. */
const CHECKPOINT_PASSES = 5

const port = parentPort
if (port !== null) {
  const stop = new Int32Array((workerData as DiskWorkerData).stop)
  port.on('message', (job: DiskJob) => port.postMessage(answer(job, stop)))
}

function answer(job: DiskJob, stop: Int32Array): DiskAnswer {
  try {
    return { id: job.id, hex: run(job, stop) }
  } catch (error: unknown) {
    return { id: job.id, code: systemCode(error) ?? 'ERR_UNKNOWN', message: String(error) }
  }
}

function run(job: DiskJob, stop: Int32Array): string {
  switch (job.kind) {
    case 'hash':
      return hashFile(job.fd, job.size, job.algorithm, stop)
    case 'sync':
      fs.fdatasyncSync(job.fd)
      return ''
    case 'checkpoint':
      checkpoint(job.file)
      return ''
  }
}

function hashFile(fd: number, size: number, algorithm: string, stop: Int32Array): string {
  const hash = createHash(algorithm)
  const piece = Buffer.allocUnsafe(PIECE_BYTES)
  for (let position = 0; position < size;) {
    if (Atomics.load(stop, 0) !== 0) throw new SystemError('hash', 'ECANCELED')
    const read = fs.readSync(fd, piece, 0, Math.min(PIECE_BYTES, size - position), position)
    if (read === 0) throw new Error(`the file ends at ${position} of ${size} bytes`)
    hash.update(piece.subarray(0, read))
    position += read
  }
  return hash.digest('hex')
}

function checkpoint(file: string): void {
  const db = new Database(file, { fileMustExist: true })
  try {
    // PASSIVE: does what it can without making the writer wait.
    moveLog(() => (db.pragma('wal_checkpoint(PASSIVE)') as CheckpointPass[])[0])
  } finally {
    db.close()
  }
}

/** What SQLite says of a checkpoint: pages in the log, and how many of them are in the database. */
export interface CheckpointPass {
  readonly log: number
  readonly checkpointed: number
}

/**
 * Makes passes until one has moved the whole log, because only then SQLite writes it from its beginning again. What was written during
 * one pass is moved by the next, which takes less time and so meets less.
 */
export function moveLog(pass: () => CheckpointPass | undefined): void {
  for (let count = 0; count < CHECKPOINT_PASSES; count += 1) {
    const done = pass()
    if (done?.log === done?.checkpointed) return
  }
}
