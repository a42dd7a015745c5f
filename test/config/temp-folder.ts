import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'

/** A folder for one test, gone at its end: `await using folder = await TempFolder.open()`. */
export class TempFolder implements AsyncDisposable {
  readonly path: string

  private constructor(folder: string) {
    this.path = folder
  }

  static async open(): Promise<TempFolder> {
    return new TempFolder(await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-config-')))
  }

  /** Writes a file, for its owner's eyes only unless `mode` says otherwise, and returns its path. */
  async write(name: string, content: string, mode = 0o600): Promise<string> {
    const file = path.join(this.path, name)
    await fs.writeFile(file, content)
    await fs.chmod(file, mode)
    return file
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await fs.rm(this.path, { recursive: true, force: true })
  }
}
