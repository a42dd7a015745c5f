import fs from 'node:fs/promises'
import { systemCode, formatPath, type KeyPath } from '../core/index.ts'
import type { Problem } from './problem.ts'
import { kindOf, stringsOf } from './schema-walk.ts'
import type { RawConfig } from './schema.ts'

/** A key such as password_file that names a variable instead of a file. */
export const ENV_SECRET = 'env:'
const READABLE_BY_OTHERS = 0o004

/** What the file holds that a key names. Undefined: the key names none. */
export type SecretAt = (path: KeyPath) => string | undefined

export interface FileFindings {
  readonly secretAt: SecretAt
  /** Every file that was looked at. */
  readonly files: readonly string[]
  readonly problems: readonly Problem[]
  readonly warnings: readonly string[]
}

/** Reads the secrets, and looks whether the certificates and keys can be read. Paths in `raw` are absolute. */
export async function readFiles(raw: RawConfig, env: NodeJS.ProcessEnv): Promise<FileFindings> {
  const secrets = new Map<string, string>()
  const problems: Problem[] = []
  const warnings: string[] = []
  const files: string[] = []
  for (const [path, schema, value] of stringsOf(raw)) {
    if (value === '') continue
    if (kindOf(schema) === 'secret-path') {
      if (!value.startsWith(ENV_SECRET)) files.push(value)
      const secret = await readSecret(path, value, env)
      if ('message' in secret) problems.push({ path, message: secret.message })
      else secrets.set(formatPath(path), secret.value)
      if (secret.warning !== undefined) warnings.push(secret.warning)
    } else if (kindOf(schema) === 'pem') {
      files.push(value)
      const message = await checkReadable(value)
      // The message names the file: which one of a list it is need not be said again.
      const key = typeof path.at(-1) === 'number' ? path.slice(0, -1) : path
      if (message !== undefined) problems.push({ path: key, message })
    }
  }
  return { secretAt: path => secrets.get(formatPath(path)), files, problems, warnings }
}

type Secret = ({ readonly value: string } | { readonly message: string }) & { readonly warning?: string }

async function readSecret(path: KeyPath, source: string, env: NodeJS.ProcessEnv): Promise<Secret> {
  if (source.startsWith(ENV_SECRET)) {
    const name = source.slice(ENV_SECRET.length)
    const value = env[name]
    return value === undefined || value === '' ? { message: `the variable ${name} is not set` } : { value }
  }
  try {
    const { mode } = await fs.stat(source)
    const value = (await fs.readFile(source, 'utf8')).replace(/\r?\n$/, '')
    if (value === '') return { message: `${source} is empty` }
    if ((mode & READABLE_BY_OTHERS) === 0) return { value }
    return { value, warning: `${formatPath(path)}: ${source} is readable by every user of this machine` }
  } catch (error: unknown) {
    return { message: unreadable(source, error) }
  }
}

async function checkReadable(file: string): Promise<string | undefined> {
  try {
    await fs.access(file, fs.constants.R_OK)
    return undefined
  } catch (error: unknown) {
    return unreadable(file, error)
  }
}

function unreadable(file: string, error: unknown): string {
  return `${file} cannot be read: ${systemCode(error) ?? 'unknown error'}`
}
