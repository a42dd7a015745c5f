import { unwatchFile, watchFile } from 'node:fs'

/** How often a changed file is looked for. */
const INTERVAL_MS = 2000

/** Tells of changes to a set of files, those included that come or go. The set may change at any time. */
export class FileWatch implements Disposable {
  readonly #onChange: () => void
  #files: ReadonlySet<string> = new Set()

  constructor(onChange: () => void) {
    this.#onChange = onChange
  }

  /** Watches these and no others. */
  set(files: Iterable<string>): void {
    const wanted = new Set(files)
    for (const file of this.#files) if (!wanted.has(file)) unwatchFile(file, this.#onChange)
    for (const file of wanted) if (!this.#files.has(file)) watchFile(file, { interval: INTERVAL_MS }, this.#onChange)
    this.#files = wanted
  }

  [Symbol.dispose](): void {
    this.set([])
  }
}
