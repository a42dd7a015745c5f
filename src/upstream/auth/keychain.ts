import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { describeError, normaliseRegistry, ShoalError, systemCode, type Logger } from '../../core/index.ts'

export interface Credential {
  readonly username: string
  readonly password: string
}

/** The node's own credentials, by registry. */
export interface Keychain {
  /** `name`: host or host:port, Docker Hub's aliases allowed. */
  get(name: string): Credential | undefined
}

export const emptyKeychain: Keychain = { get: () => undefined }

/** RFC 7617. */
export function basicAuthorization({ username, password }: Credential): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}

/**
 * The `auths` of a docker config.json. `file` = '' means $DOCKER_CONFIG/config.json or ~/.docker/config.json; when that is missing or
 * unreadable there are no credentials, which is logged. A file that was named must be there: ERR_CONFIG_INVALID. Credential helpers
 * and identity tokens are not used.
 */
export async function readDockerConfig(
  deps: { readonly log: Logger; readonly env?: NodeJS.ProcessEnv },
  options: { readonly file: string },
): Promise<Keychain> {
  const { log, env = process.env } = deps
  const file = options.file === '' ? defaultFile(env) : options.file
  try {
    return parseDockerConfig(await fs.readFile(file, 'utf8'), log)
  } catch (error: unknown) {
    if (options.file !== '') {
      throw new ShoalError('ERR_CONFIG_INVALID', `cannot use ${file}: ${reasonOf(error)}`)
    }
    if (systemCode(error) !== 'ENOENT') log.warn({ file, cause: reasonOf(error) }, 'docker config not used')
    return emptyKeychain
  }
}

function defaultFile(env: NodeJS.ProcessEnv): string {
  return path.join(env['DOCKER_CONFIG'] ?? path.join(env['HOME'] ?? os.homedir(), '.docker'), 'config.json')
}

/** JSON errors quote their input, which here holds passwords. */
function reasonOf(error: unknown): string {
  return error instanceof SyntaxError ? 'not valid JSON' : describeError(error)
}

function parseDockerConfig(text: string, log: Logger): Keychain {
  const config: unknown = JSON.parse(text)
  const auths = isRecord(config) ? (config['auths'] ?? {}) : undefined
  if (!isRecord(auths)) throw new ShoalError('ERR_CONFIG_INVALID', '"auths" is not an object')
  const credentials = new Map<string, Credential>()
  for (const [key, entry] of Object.entries(auths)) {
    const name = nameOfKey(key)
    const credential = isRecord(entry) ? credentialOf(entry) : undefined
    if (name === undefined || credential === undefined) {
      log.debug({ registry: name ?? 'unreadable' }, 'docker config entry holds no password')
    } else {
      credentials.set(name, credential)
    }
  }
  return {
    get: name => {
      const normal = normaliseRegistry(name)
      return normal === undefined ? undefined : credentials.get(normal)
    },
  }
}

/** Keys are `host`, `host:port`, or a URL such as Docker Hub's `https://index.docker.io/v1/`. */
function nameOfKey(key: string): string | undefined {
  const host = key.replace(/^https?:\/\//i, '').split('/', 1)[0]
  return host === undefined ? undefined : normaliseRegistry(host)
}

function credentialOf(entry: Record<string, unknown>): Credential | undefined {
  const { auth, username, password } = entry
  if (typeof auth === 'string' && auth !== '') {
    const text = Buffer.from(auth, 'base64').toString('utf8')
    const colon = text.indexOf(':')
    if (colon <= 0 || colon === text.length - 1) return undefined
    // Docker pads some with NUL.
    return { username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, '') }
  }
  if (typeof username !== 'string' || typeof password !== 'string' || username === '' || password === '')
    return undefined
  return { username, password }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
