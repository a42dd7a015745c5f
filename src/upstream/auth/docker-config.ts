import os from 'node:os'
import path from 'node:path'
import { isTree, normaliseRegistry, ShoalError, type Clock, type Logger } from '../../core/index.ts'
import { loginCredential, tokenCredential, type Credential } from './credential.ts'
import { DockerHelpers } from './docker-helpers.ts'
import { parseJsonObject } from './json.ts'
import { isProgramName, type ProgramRunner } from './program-runner.ts'
import { WatchedFile } from './watched-file.ts'

/** Under which Docker Hub's login is kept, in files and by helpers. */
export const HUB_KEY = 'https://index.docker.io/v1/'

/** What is used of a docker config.json, by normalised name of the registry. */
export interface DockerConfigContent {
  readonly credentials: ReadonlyMap<string, Credential>
  /** Names of helpers; '' means that the registry has none, whatever `helper` says. */
  readonly helpers: ReadonlyMap<string, string>
  /** Of every registry that `helpers` does not name. */
  readonly helper: string
}

const NOTHING: DockerConfigContent = { credentials: new Map(), helpers: new Map(), helper: '' }

export interface DockerConfigDeps {
  readonly log: Logger
  readonly clock: Clock
  readonly env: NodeJS.ProcessEnv
  readonly runner: ProgramRunner
}

/**
 * A docker config.json and the credential helpers that it names. Docker's order: the registry's own helper, else the one for all; and
 * where that has nothing, what stands in the file itself.
 */
export class DockerConfig {
  readonly #file: WatchedFile<DockerConfigContent>
  readonly #helpers: DockerHelpers

  private constructor(file: WatchedFile<DockerConfigContent>, helpers: DockerHelpers) {
    this.#file = file
    this.#helpers = helpers
  }

  /**
   * `file` = '' means $DOCKER_CONFIG/config.json or ~/.docker/config.json; where there is none, there are no credentials. Throws
   * ERR_CONFIG_INVALID when a file that was named cannot be used.
   */
  static async open(deps: DockerConfigDeps, { file }: { readonly file: string }): Promise<DockerConfig> {
    const { env, log } = deps
    const parse = (text: string): DockerConfigContent => parseDockerConfig(text, log)
    const options = file === '' ? { file: defaultFile(env), parse, missing: NOTHING } : { file, parse }
    return new DockerConfig(await WatchedFile.open(deps, options), new DockerHelpers(deps))
  }

  /** `host`: normalised. */
  async get({ host }: { readonly host: string }, refused: Credential | undefined): Promise<Credential | undefined> {
    const { credentials, helper, helpers } = await this.#file.get({ anew: refused !== undefined })
    const name = helpers.get(host) ?? helper
    const fromHelper =
      name === '' ? undefined : await this.#helpers.get({ name, host, server: serverOf(host) }, refused)
    return fromHelper ?? credentials.get(host)
  }
}

function defaultFile(env: NodeJS.ProcessEnv): string {
  return path.join(env['DOCKER_CONFIG'] ?? path.join(env['HOME'] ?? os.homedir(), '.docker'), 'config.json')
}

/** As docker names a registry to its helpers. */
function serverOf(host: string): string {
  return host === 'docker.io' ? HUB_KEY : host
}

/** Throws ERR_CONFIG_INVALID. Entries that are of no use are passed over; a helper that cannot be one is said so. */
export function parseDockerConfig(text: string, log: Logger): DockerConfigContent {
  const config = parseJsonObject(text)
  if (config === undefined) throw new ShoalError('ERR_CONFIG_INVALID', 'not a valid JSON object')
  const helperOf = (name: unknown, registry: string): string => {
    if (name === undefined || name === '') return ''
    if (typeof name === 'string' && isProgramName(name)) return name
    log.warn({ registry }, 'credential helper not used: what stands there is not a name')
    return ''
  }
  const helpers = new Map<string, string>()
  for (const [name, value] of byRegistry(config, 'credHelpers', log)) helpers.set(name, helperOf(value, name))
  const credentials = new Map<string, Credential>()
  for (const [name, entry] of byRegistry(config, 'auths', log)) {
    const credential = isTree(entry) ? credentialOf(entry) : undefined
    if (credential === undefined) log.debug({ registry: name }, 'docker config entry holds no credential')
    else credentials.set(name, credential)
  }
  return { credentials, helpers, helper: helperOf(config['credsStore'], '*') }
}

/**
 * The entries of a section by normalised name. Keys are `host`, `host:port`, or a URL as docker once wrote them; of several for the same
 * registry the one that docker itself looks for first counts, else the last.
 */
function byRegistry(config: Record<string, unknown>, section: string, log: Logger): Map<string, unknown> {
  const entries = config[section] ?? {}
  if (!isTree(entries)) throw new ShoalError('ERR_CONFIG_INVALID', `"${section}" is not an object`)
  const byName = new Map<string, unknown>()
  const exact = new Set<string>()
  for (const [key, entry] of Object.entries(entries)) {
    const name = normaliseRegistry(key.replace(/^https?:\/\//i, '').split('/', 1)[0] ?? '')
    if (name === undefined) log.debug({ section }, 'docker config entry is for no host')
    else if (key === serverOf(name)) {
      exact.add(name)
      byName.set(name, entry)
    } else if (!exact.has(name)) byName.set(name, entry)
  }
  return byName
}

/** In docker's order: a token for the registry, one for its token service, a login. */
function credentialOf(entry: Record<string, unknown>): Credential | undefined {
  const { auth, identitytoken, password, registrytoken, username } = entry
  if (isText(registrytoken)) return tokenCredential('bearer', registrytoken)
  if (isText(identitytoken)) return tokenCredential('identity-token', identitytoken)
  if (isText(auth)) {
    const text = Buffer.from(auth, 'base64').toString('utf8')
    const colon = text.indexOf(':')
    // Docker pads some with NUL.
    return colon < 0 ? undefined : loginCredential(text.slice(0, colon), text.slice(colon + 1).replace(/\0+$/, ''))
  }
  return isText(password) ? loginCredential(isText(username) ? username : '', password) : undefined
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}
