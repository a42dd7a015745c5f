import { createHash } from 'node:crypto'
import fs from 'node:fs/promises'
import { systemCode } from '../../core/index.ts'

/** What files looked like when they were looked at first, in so far as a change of them would show. */
export class FileStates {
  readonly #states = new Map<string, string>()

  /** To be called before the file or directory is read: a change in between then shows later. */
  async note(file: string): Promise<void> {
    if (!this.#states.has(file)) this.#states.set(file, await stateOf(file))
  }

  get files(): string[] {
    return [...this.#states.keys()].sort()
  }

  /** Equal for equal states of the same files. */
  get signature(): string {
    const lines = this.files.map(file => `${file}\0${this.#states.get(file) ?? ''}\n`)
    return createHash('sha256').update(lines.join('')).digest('hex')
  }
}

/** ctime, because a file may become readable. */
async function stateOf(file: string): Promise<string> {
  try {
    const { ctimeNs, dev, ino, mtimeNs, size } = await fs.stat(file, { bigint: true })
    return [dev, ino, size, mtimeNs, ctimeNs].join(' ')
  } catch (error: unknown) {
    return systemCode(error) ?? 'unknown'
  }
}
