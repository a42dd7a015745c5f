import fs from 'node:fs/promises'
import { systemCode, formatPath, type KeyPath } from '../core/index.ts'
import type { Problem } from './problem.ts'
import type { RawConfig } from './schema.ts'

/** A password_file that names a variable instead of a file. */
export const ENV_SECRET = 'env:'
const READABLE_BY_OTHERS = 0o004

export interface FileFindings {
  /** Passwords by the name of the registry, as written in the configuration. */
  readonly passwords: ReadonlyMap<string, string>
  readonly problems: readonly Problem[]
  readonly warnings: readonly string[]
}

/** Reads the passwords, and looks whether the other files that the registries name can be read. Paths in `raw` are absolute. */
export async function readFiles(raw: RawConfig, env: NodeJS.ProcessEnv): Promise<FileFindings> {
  const passwords = new Map<string, string>()
  const problems: Problem[] = []
  const warnings: string[] = []
  for (const [name, registry] of Object.entries(raw.registries)) {
    const path = ['registries', name, 'password_file']
    if (registry.password_file !== '') {
      const secret = await readSecret(path, registry.password_file, env)
      if ('message' in secret) problems.push({ path, message: secret.message })
      else passwords.set(name, secret.value)
      if (secret.warning !== undefined) warnings.push(secret.warning)
    }
    for (const key of ['ca', 'cert', 'key'] as const) {
      const message = await checkReadable(registry.tls[key])
      if (message !== undefined) problems.push({ path: ['registries', name, 'tls', key], message })
    }
  }
  return { passwords, problems, warnings }
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
  if (file === '') return undefined
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
