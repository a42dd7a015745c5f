import fs from 'node:fs/promises'
import path from 'node:path'
import { LRUCache } from 'lru-cache'
import { BLOCK_BYTES, systemCode, type Digest, type Logger } from '../core/index.ts'
import { ALGORITHMS, blobFile, digestOfName, DIRECTORY_MODE, FILE_MODE, trashFile } from './layout.ts'
import type { FileRef, Layout } from './layout.ts'
import type { Native } from './native.ts'
import { Tasks } from './tasks.ts'
import { WriteQueue } from './write-queue.ts'

/** Bytes start ... start+length-1 of a file. */
export interface FileSpan {
  readonly start: number
  readonly length: number
}

export interface FileFacts {
  readonly size: number
  /** Bytes that the file takes on the disk; less than its size where it has holes. */
  readonly allocated: number
}

/**
 * The data files of a store: one sparse file per blob. Failures are Node's own errors or SystemErrors (ENOENT, EIO, ENOSPC ...). Calls may
 * overlap; a descriptor is never closed while one uses it.
 */
export interface DataFiles {
  /** Whether `target` was filled from the page cache; never waits for the disk, and never opens a file. */
  readNow(ref: FileRef, target: Uint8Array, position: number): boolean
  /** Bytes that `socket` took from the page cache; 0 when it takes none now, or the file is not open. */
  sendNow(ref: FileRef, socket: number, position: number, length: number): number
  /** Bytes read: fewer than asked only where the file ends. ENOENT: there is no file. */
  read(ref: FileRef, target: Uint8Array, position: number): Promise<number>
  /** Makes the file if need be. */
  write(ref: FileRef, pieces: readonly Uint8Array[], position: number): Promise<void>
  /** Gives the spans' bytes back to the disk. */
  punch(ref: FileRef, spans: readonly FileSpan[]): Promise<void>
  /** The file's descriptor for as long as `work` takes. */
  withDescriptor<T>(ref: FileRef, work: (fd: number) => Promise<T>): Promise<T>
  /** Takes the file's name away, so that the digest may be stored anew; its bytes stay readable by `ref`. */
  retire(ref: FileRef): Promise<void>
  /** Deletes a retired file. Its last reader must have left. */
  erase(ref: FileRef): Promise<void>
  /** Undefined: there is no file. */
  stat(ref: FileRef): Promise<FileFacts | undefined>
  /** Cuts what lies beyond `size`. */
  truncate(ref: FileRef, size: number): Promise<void>
  /** Digests that have a file, in no order. */
  names(): AsyncIterable<Digest>
  /** Deletes a file that no row knows. Bytes freed; undefined: there was none. Safe against the digest's being stored anew meanwhile. */
  deleteOrphan(digest: Digest): Promise<number | undefined>
  /** Deletes what an earlier run retired and did not erase. What cannot be deleted is logged and stays. */
  emptyTrash(): Promise<void>
  /** Free bytes of the disk; undefined: it cannot be asked. */
  freeBytes(): Promise<number | undefined>
  /** Writes, flushes and removes a block's worth of bytes. Rejects while the disk refuses. */
  probe(): Promise<void>
  /** Waits for what runs and closes every descriptor. */
  close(): Promise<void>
}

interface OpenFile {
  readonly handle: fs.FileHandle
  readonly writable: boolean
  readonly writes: WriteQueue
  users: number
  /** No longer in the cache: closed by whoever leaves last. */
  dismissed: boolean
}

/** Descriptors kept open between uses; far below the usual limit of 1024, which the sockets need. */
const MAX_OPEN_FILES = 256

const BLOCK_OF_STAT_BYTES = 512

export class DiskFiles implements DataFiles {
  readonly #layout: Layout
  readonly #native: Native
  readonly #log: Logger
  readonly #open: LRUCache<number, OpenFile>
  /** Digests whose file is being renamed or deleted: nobody opens one by that name meanwhile. */
  readonly #changing = new Map<Digest, Promise<void>>()
  readonly #retired = new Set<number>()
  /** Opens under way, by blob id: a rename between their looking up a name and their making the file would leave a stray one. */
  readonly #opening = new Map<number, Tasks>()
  readonly #closings = new Set<Promise<void>>()

  constructor(deps: { native: Native; log: Logger }, options: { layout: Layout; maxOpenFiles?: number }) {
    this.#layout = options.layout
    this.#native = deps.native
    this.#log = deps.log
    this.#open = new LRUCache({
      max: options.maxOpenFiles ?? MAX_OPEN_FILES,
      dispose: file => this.#dismiss(file),
    })
  }

  readNow(ref: FileRef, target: Uint8Array, position: number): boolean {
    const file = this.#open.get(ref.id)
    return file !== undefined && this.#native.readNow(file.handle.fd, target, position)
  }

  sendNow(ref: FileRef, socket: number, position: number, length: number): number {
    const file = this.#open.get(ref.id)
    return file === undefined ? 0 : this.#native.sendFile(socket, file.handle.fd, position, length)
  }

  read(ref: FileRef, target: Uint8Array, position: number): Promise<number> {
    return this.#use(ref, false, async handle => {
      let filled = 0
      while (filled < target.byteLength) {
        const { bytesRead } = await handle.read(target, filled, target.byteLength - filled, position + filled)
        if (bytesRead === 0) break
        filled += bytesRead
      }
      return filled
    })
  }

  write(ref: FileRef, pieces: readonly Uint8Array[], position: number): Promise<void> {
    return this.#use(ref, true, (_handle, file) => file.writes.write(pieces, position))
  }

  punch(ref: FileRef, spans: readonly FileSpan[]): Promise<void> {
    return this.#use(ref, true, async handle => {
      for (const { start, length } of spans) await this.#native.punchHole(handle.fd, start, length)
    })
  }

  withDescriptor<T>(ref: FileRef, work: (fd: number) => Promise<T>): Promise<T> {
    return this.#use(ref, false, handle => work(handle.fd))
  }

  retire(ref: FileRef): Promise<void> {
    this.#retired.add(ref.id)
    return this.#owningName(ref.digest, async () => {
      await this.#opening.get(ref.id)?.idle()
      await ignoring('ENOENT', () => fs.rename(blobFile(this.#layout, ref.digest), trashFile(this.#layout, ref.id)))
    })
  }

  async erase(ref: FileRef): Promise<void> {
    this.#open.delete(ref.id)
    await ignoring('ENOENT', () => fs.unlink(trashFile(this.#layout, ref.id)))
    // The disk has the bytes back only when the last descriptor is closed.
    await Promise.all(this.#closings)
    this.#retired.delete(ref.id)
  }

  async stat(ref: FileRef): Promise<FileFacts | undefined> {
    return factsOf(this.#path(ref))
  }

  async truncate(ref: FileRef, size: number): Promise<void> {
    await fs.truncate(this.#path(ref), size)
  }

  async *names(): AsyncGenerator<Digest> {
    for (const algorithm of ALGORITHMS) {
      const top = path.join(this.#layout.blobs, algorithm)
      for (const shard of await list(top)) {
        for (const name of await list(path.join(top, shard))) {
          const digest = digestOfName(algorithm, name)
          if (digest !== undefined) yield digest
        }
      }
    }
  }

  deleteOrphan(digest: Digest): Promise<number | undefined> {
    return this.#owningName(digest, async () => {
      const file = blobFile(this.#layout, digest)
      const facts = await factsOf(file)
      if (facts === undefined) return undefined
      await ignoring('ENOENT', () => fs.unlink(file))
      return facts.allocated
    })
  }

  async emptyTrash(): Promise<void> {
    for (const name of await list(this.#layout.trash)) {
      try {
        await fs.rm(path.join(this.#layout.trash, name), { force: true, recursive: true })
      } catch (err: unknown) {
        this.#log.warn({ err, name }, 'file in the trash could not be deleted')
      }
    }
  }

  async freeBytes(): Promise<number | undefined> {
    try {
      const { bavail, bsize } = await fs.statfs(this.#layout.root)
      return bavail * bsize
    } catch (err: unknown) {
      this.#log.debug({ err }, 'free bytes of the disk are not known')
      return undefined
    }
  }

  async probe(): Promise<void> {
    try {
      await using handle = await fs.open(this.#layout.probe, 'w', FILE_MODE)
      await handle.writeFile(Buffer.alloc(BLOCK_BYTES, 1))
      await handle.datasync()
    } finally {
      // Why the bytes were not taken matters more than that the file cannot be removed either.
      await fs.rm(this.#layout.probe, { force: true }).catch(() => undefined)
    }
  }

  async close(): Promise<void> {
    this.#open.clear()
    await Promise.all(this.#closings)
  }

  /** Nobody opens the digest's file by name while `work` runs. */
  async #owningName<T>(digest: Digest, work: () => Promise<T>): Promise<T> {
    const before = this.#changing.get(digest)
    const mine = before === undefined ? work() : before.then(work)
    // Whoever waits for the name only needs this to be over.
    const settled = mine.then(
      () => undefined,
      () => undefined,
    )
    this.#changing.set(digest, settled)
    try {
      return await mine
    } finally {
      if (this.#changing.get(digest) === settled) this.#changing.delete(digest)
    }
  }

  #path(ref: FileRef): string {
    return this.#retired.has(ref.id) ? trashFile(this.#layout, ref.id) : blobFile(this.#layout, ref.digest)
  }

  async #use<T>(ref: FileRef, write: boolean, work: (handle: fs.FileHandle, file: OpenFile) => Promise<T>): Promise<T> {
    const cached = this.#open.get(ref.id)
    let file: OpenFile
    if (cached !== undefined && (cached.writable || !write)) {
      file = cached
      file.users += 1
    } else {
      file = await this.#openFile(ref, write)
    }
    try {
      return await work(file.handle, file)
    } finally {
      file.users -= 1
      if (file.dismissed && file.users === 0) this.#closeFile(file)
    }
  }

  /** Two calls at once open two descriptors; the later one stays in the cache, the other closes after its use. */
  async #openFile(ref: FileRef, write: boolean): Promise<OpenFile> {
    for (let change = this.#changing.get(ref.digest); change !== undefined; change = this.#changing.get(ref.digest)) {
      await change
    }
    const opening = this.#opening.get(ref.id) ?? new Tasks()
    this.#opening.set(ref.id, opening)
    try {
      const path = this.#path(ref)
      const opened = await opening.track(write ? openForWriting(path) : openForReading(path))
      const file: OpenFile = { ...opened, writes: new WriteQueue(opened.handle), users: 1, dismissed: false }
      this.#open.set(ref.id, file)
      return file
    } finally {
      if (opening.size === 0) this.#opening.delete(ref.id)
    }
  }

  #dismiss(file: OpenFile): void {
    file.dismissed = true
    if (file.users === 0) this.#closeFile(file)
  }

  #closeFile(file: OpenFile): void {
    const closing = file.handle
      .close()
      .catch((err: unknown) => this.#log.warn({ err }, 'data file did not close'))
      .finally(() => this.#closings.delete(closing))
    this.#closings.add(closing)
  }
}

async function openForWriting(file: string): Promise<{ handle: fs.FileHandle; writable: boolean }> {
  const flags = fs.constants.O_RDWR | fs.constants.O_CREAT
  try {
    return { handle: await fs.open(file, flags, FILE_MODE), writable: true }
  } catch (error: unknown) {
    if (systemCode(error) !== 'ENOENT') throw error
    await fs.mkdir(path.dirname(file), { recursive: true, mode: DIRECTORY_MODE })
    return { handle: await fs.open(file, flags, FILE_MODE), writable: true }
  }
}

/** For reading and, where the disk allows it, for writing later; never makes a file. */
async function openForReading(file: string): Promise<{ handle: fs.FileHandle; writable: boolean }> {
  try {
    return { handle: await fs.open(file, fs.constants.O_RDWR), writable: true }
  } catch (error: unknown) {
    if (systemCode(error) !== 'EROFS' && systemCode(error) !== 'EACCES') throw error
    return { handle: await fs.open(file, fs.constants.O_RDONLY), writable: false }
  }
}

async function factsOf(file: string): Promise<FileFacts | undefined> {
  try {
    const { size, blocks } = await fs.stat(file)
    return { size, allocated: blocks * BLOCK_OF_STAT_BYTES }
  } catch (error: unknown) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw error
  }
}

async function list(directory: string): Promise<string[]> {
  try {
    return await fs.readdir(directory)
  } catch (error: unknown) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return []
    throw error
  }
}

async function ignoring(code: string, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error: unknown) {
    if (systemCode(error) !== code) throw error
  }
}
