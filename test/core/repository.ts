import { existsSync } from 'node:fs'
import path from 'node:path'

/** A file of the repository, found from the compiled tests wherever they were compiled to. */
export function repositoryFile(name: string): string {
  let folder = import.meta.dirname
  while (!existsSync(path.join(folder, 'package.json'))) {
    const parent = path.dirname(folder)
    if (parent === folder) throw new Error('the tests are not inside the repository')
    folder = parent
  }
  return path.join(folder, name)
}
