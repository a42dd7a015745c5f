import { createHash } from 'node:crypto'
import fs from 'node:fs/promises'
import { describeError, ShoalError, systemCode, type Clock, type Logger } from '../../core/index.ts'

/** How often a file is looked at, however often it is asked for. */
const LOOK_MS = 1_000
/** No configuration of credentials is anywhere near as large. */
const MAX_FILE_BYTES = 4 * 1024 * 1024

export interface WatchedFileOptions<T> {
  readonly file: string
  /** Throws a ShoalError whose message quotes nothing of the text, which may hold passwords. */
  readonly parse: (text: string) => T
  /** What holds where there is no file. Absent: there has to be one. */
  readonly missing?: T
}

/** Which state of the file is in force. */
interface FileState<T> {
  readonly value: T
  /** Of the file's status. */
  readonly signature: string
  /** Of the text that `value` was made from. Undefined: from none. */
  readonly digest: string | undefined
}

/**
 * A file of configuration that is read again when it has changed. Nothing watches it: it is looked at when it is asked for, at most once
 * a second. What cannot be used is logged once, and what was read last stays in force.
 */
export class WatchedFile<T> {
  readonly #clock: Clock
  readonly #log: Logger
  readonly #options: WatchedFileOptions<T>
  #state: FileState<T>
  #lookedAt: number
  #looking: Promise<void> | undefined

  private constructor(
    deps: { readonly clock: Clock; readonly log: Logger },
    options: WatchedFileOptions<T>,
    state: FileState<T>,
  ) {
    this.#clock = deps.clock
    this.#log = deps.log
    this.#options = options
    this.#state = state
    this.#lookedAt = deps.clock.now()
  }

  /** Throws ERR_CONFIG_INVALID when the file has to be there and cannot be used. One that may be missing and cannot be used is logged. */
  static async open<T>(
    deps: { readonly clock: Clock; readonly log: Logger },
    options: WatchedFileOptions<T>,
  ): Promise<WatchedFile<T>> {
    const { file, missing, parse } = options
    const signature = await signatureOf(file)
    try {
      const { digest, text } = await readText(file)
      return new WatchedFile(deps, options, { value: parse(text), signature, digest })
    } catch (error: unknown) {
      if (missing === undefined) {
        throw new ShoalError('ERR_CONFIG_INVALID', `cannot use ${file}: ${describeError(error)}`)
      }
      if (signature !== MISSING) deps.log.warn({ file, cause: describeError(error) }, 'credential file not used')
      return new WatchedFile(deps, options, { value: missing, signature, digest: undefined })
    }
  }

  /**
   * `anew`: look at the file whenever that was done last, and read it even when it seems not to have changed. The same value as long as the
   * text is the same. Never throws.
   */
  async get(options: { readonly anew: boolean }): Promise<T> {
    if (options.anew || this.#clock.now() - this.#lookedAt >= LOOK_MS) {
      this.#looking ??= this.#look(options.anew).finally(() => (this.#looking = undefined))
    }
    await this.#looking
    return this.#state.value
  }

  async #look(anew: boolean): Promise<void> {
    this.#lookedAt = this.#clock.now()
    const { file, missing, parse } = this.#options
    const signature = await signatureOf(file)
    const isChanged = signature !== this.#state.signature
    if (!isChanged && !anew) return
    this.#state = { ...this.#state, signature }
    if (signature === MISSING && missing !== undefined) {
      this.#state = { value: missing, signature, digest: undefined }
      return
    }
    try {
      const { digest, text } = await readText(file)
      if (digest === this.#state.digest) return
      this.#state = { value: parse(text), signature, digest }
      this.#log.info({ file }, 'credential file read again')
    } catch (error: unknown) {
      if (isChanged)
        this.#log.warn({ file, cause: describeError(error) }, 'credential file not used, the last one stays')
    }
  }
}

const MISSING = 'missing'

/** Never throws: what is wrong with the file will be seen on reading it. */
async function signatureOf(file: string): Promise<string> {
  try {
    const { ctimeNs, ino, mtimeNs, size } = await fs.stat(file, { bigint: true })
    return `${ino} ${mtimeNs} ${ctimeNs} ${size}`
  } catch (error: unknown) {
    return systemCode(error) === 'ENOENT' ? MISSING : `unreadable ${systemCode(error) ?? ''}`
  }
}

async function readText(file: string): Promise<{ readonly text: string; readonly digest: string }> {
  const stat = await fs.stat(file)
  // Opening a named pipe would wait for somebody to write to it.
  if (!stat.isFile()) throw new ShoalError('ERR_CONFIG_INVALID', 'not a regular file')
  if (stat.size > MAX_FILE_BYTES) throw new ShoalError('ERR_CONFIG_INVALID', `more than ${MAX_FILE_BYTES} bytes`)
  const text = await fs.readFile(file, 'utf8')
  return { text, digest: createHash('sha256').update(text).digest('hex') }
}
