import fs from 'node:fs/promises'
import { ShoalError } from '../core/index.ts'
import { FILE_MODE } from './layout.ts'
import type { Native } from './native.ts'

/**
 * The right to use a state directory, held until disposed or until the process ends, however it ends. The file holds the owner's pid and
 * is never unlinked, because unlinking it would let two processes hold locks on two files of one name.
 */
export class StateLock implements AsyncDisposable {
  readonly #handle: fs.FileHandle

  private constructor(handle: fs.FileHandle) {
    this.#handle = handle
  }

  /** Throws ERR_STORE_LOCKED with the owner's pid in its details. */
  static async open(deps: { native: Native }, options: { file: string }): Promise<StateLock> {
    const handle = await fs.open(options.file, 'a+', FILE_MODE)
    try {
      if (!deps.native.tryLock(handle.fd)) throw await lockedBy(handle, options.file)
      await handle.truncate(0)
      await handle.write(`${process.pid}\n`)
      return new StateLock(handle)
    } catch (error: unknown) {
      await handle.close()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The lock is what counts; a pid that stays behind misleads nobody, for the next owner writes its own.
    await this.#handle.truncate(0).catch(() => undefined)
    await this.#handle.close()
  }
}

async function lockedBy(handle: fs.FileHandle, file: string): Promise<ShoalError> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(32), 0, 32, 0)
  const pid = Number.parseInt(buffer.toString('latin1', 0, bytesRead), 10)
  const owner = Number.isNaN(pid) ? 'another process' : `process ${pid}`
  return new ShoalError('ERR_STORE_LOCKED', `${file}: ${owner} already uses this state directory`, {
    details: Number.isNaN(pid) ? { file } : { file, pid },
  })
}
