import fs from 'node:fs/promises'
import { run } from './processes.ts'

export interface Credentials {
  readonly username: string
  readonly password: string
}

/** Writes a password file for docker-registry, which reads bcrypt only (-B). */
export async function writeHtpasswd(file: string, credentials: Credentials): Promise<void> {
  const { stdout } = await run('htpasswd', ['-Bbn', credentials.username, credentials.password])
  await fs.writeFile(file, stdout)
}
