import fs from 'node:fs/promises'
import path from 'node:path'
import { temporaryDirectory } from '../../support/tools.ts'

/** Credential helpers and plugins in a directory of their own: real programs, whose calls are counted. */
export interface Programs extends AsyncDisposable {
  readonly directory: string
  /** With the directory in PATH, and no docker config of its own. */
  readonly env: NodeJS.ProcessEnv
  /** A shell script. Its input is in "$0.input". */
  write(name: string, script: string): Promise<void>
  /** A file beside the programs. */
  file(name: string, content: unknown): Promise<string>
  calls(name: string): Promise<number>
  /** What it was told at its last call. */
  input(name: string): Promise<string>
}

export async function makePrograms(): Promise<Programs> {
  const temporary = await temporaryDirectory('shoal-programs')
  const at = (name: string): string => path.join(temporary.path, name)
  return {
    directory: temporary.path,
    env: { PATH: `${temporary.path}:/usr/bin:/bin`, HOME: temporary.path },
    write: async (name, script) => {
      // By renaming: a script that is being written cannot be run.
      const draft = `${at(name)}.draft`
      await fs.writeFile(draft, `#!/bin/sh\ncat > "$0.input"\necho >> "$0.calls"\n${script}\n`, { mode: 0o755 })
      await fs.rename(draft, at(name))
    },
    file: async (name, content) => {
      await fs.writeFile(at(name), typeof content === 'string' ? content : JSON.stringify(content))
      return at(name)
    },
    calls: async name => (await fs.readFile(`${at(name)}.calls`, 'utf8').catch(() => '')).length,
    input: name => fs.readFile(`${at(name)}.input`, 'utf8'),
    [Symbol.asyncDispose]: () => temporary[Symbol.asyncDispose](),
  }
}

export function base64(text: string): string {
  return Buffer.from(text).toString('base64')
}
