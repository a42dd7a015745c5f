import path from 'node:path'
import { isTree, type Clock, type Logger, type Tree } from '../../core/index.ts'
import type { CredentialPluginsOptions } from '../options.ts'
import { loginCredential, type Credential } from './credential.ts'
import { parseGoDuration } from '../hosts/go-duration.ts'
import { HelperAnswers, type HelperOutcome } from './helper-answers.ts'
import { parseImagePattern, type ImagePattern } from './image-pattern.ts'
import { parseJsonObject } from './json.ts'
import { parsePluginConfig, type PluginConfig } from './plugin-config.ts'
import { exitOf, type ProgramRunner } from './program-runner.ts'
import { WatchedFile } from './watched-file.ts'

/**
 * An answer is kept for at least this long, whatever it says: kubelet asks once for a pull, which here is many requests, each of them
 * asking. One that is no good any longer is refused, and then asked for anew.
 */
const MIN_KEEP_MS = 10_000

/** Logins by the pattern of images that they are for, in kubelet's order; the first that fits counts. */
type PluginAnswer = readonly {
  readonly pattern: ImagePattern
  /** Undefined: no login is needed. */
  readonly credential: Credential | undefined
}[]

/** Where an answer is kept, by its cacheKeyType. */
interface AnswerKeys {
  readonly image: string
  readonly registry: string
  readonly global: string
}

interface Image {
  readonly host: string
  readonly repository: string
}

interface Deps {
  readonly log: Logger
  readonly clock: Clock
  readonly runner: ProgramRunner
}

/** kubelet's credential provider plugins: programs that are told an image and print logins (exec protocol credentialprovider.kubelet.k8s.io). */
export class CredentialPlugins {
  readonly #deps: Deps
  readonly #binDir: string
  readonly #file: WatchedFile<readonly PluginConfig[]>
  /** Of a plugin as it was configured; of another configuration nothing is kept. */
  readonly #answers = new WeakMap<PluginConfig, HelperAnswers<PluginAnswer>>()

  private constructor(deps: Deps & { readonly file: WatchedFile<readonly PluginConfig[]> }, binDir: string) {
    this.#deps = deps
    this.#file = deps.file
    this.#binDir = binDir
  }

  /** Throws ERR_CONFIG_INVALID. */
  static async open(deps: Deps, options: CredentialPluginsOptions): Promise<CredentialPlugins> {
    const parse = (text: string): readonly PluginConfig[] => usable(parsePluginConfig(text), deps.log)
    const file = await WatchedFile.open(deps, { file: options.config, parse })
    return new CredentialPlugins({ ...deps, file }, options.binDir)
  }

  /** `host`: normalised. Undefined: no plugin has any, or they failed, which is logged. Throws ERR_CLOSED. */
  async get({ host, repository }: Image, refused: Credential | undefined): Promise<Credential | undefined> {
    const image = `${host}/${repository}`
    const keys: AnswerKeys = { image: `image ${image}`, registry: `registry ${host}`, global: 'global' }
    const credentialOf = (answer: PluginAnswer): Credential | undefined =>
      answer.find(({ pattern }) => pattern.matches(image))?.credential
    for (const plugin of await this.#file.get({ anew: refused !== undefined })) {
      if (!plugin.matchImages.some(pattern => pattern.matches(image))) continue
      const question = {
        keys: [keys.image, keys.registry, keys.global],
        failureKey: keys.registry,
        registry: host,
        ask: () => this.#ask(plugin, image, keys),
        credentialOf,
      }
      const answer = await this.#answersOf(plugin).get(question, refused)
      const credential = answer === undefined ? undefined : credentialOf(answer)
      if (credential !== undefined) return credential
    }
    return undefined
  }

  #answersOf(plugin: PluginConfig): HelperAnswers<PluginAnswer> {
    const known = this.#answers.get(plugin)
    if (known !== undefined) return known
    const made = new HelperAnswers<PluginAnswer>(this.#deps, { helper: plugin.name })
    this.#answers.set(plugin, made)
    return made
  }

  async #ask(plugin: PluginConfig, image: string, keys: AnswerKeys): Promise<HelperOutcome<PluginAnswer>> {
    const { apiVersion, args, defaultCacheMs, env, name } = plugin
    const input = JSON.stringify({ kind: 'CredentialProviderRequest', apiVersion, image })
    const result = await this.#deps.runner.run({ file: path.join(this.#binDir, name), args, env, input })
    if (result.kind === 'failed') return result
    if (result.code !== 0) return { kind: 'failed', why: exitOf(result) }
    return parseAnswer(result.stdout, { defaultCacheMs, keys })
  }
}

function usable(plugins: readonly PluginConfig[], log: Logger): readonly PluginConfig[] {
  return plugins.filter(({ name, needsServiceAccount }) => {
    if (needsServiceAccount) log.warn({ helper: name }, 'credential plugin not used: it requires a service account')
    return !needsServiceAccount
  })
}

/** A CredentialProviderResponse. What is wrong with it is said without quoting it. */
function parseAnswer(
  stdout: string,
  { defaultCacheMs, keys }: { readonly defaultCacheMs: number; readonly keys: AnswerKeys },
): HelperOutcome<PluginAnswer> {
  const response = parseJsonObject(stdout)
  if (response?.['kind'] !== 'CredentialProviderResponse') {
    return { kind: 'failed', why: 'did not print a CredentialProviderResponse' }
  }
  const key = keyOf(response['cacheKeyType'], keys)
  if (key === undefined) return { kind: 'failed', why: 'printed an unknown cacheKeyType' }
  const cacheDuration = response['cacheDuration'] ?? undefined
  const cacheMs = cacheDuration === undefined ? defaultCacheMs : durationOf(cacheDuration)
  if (cacheMs === undefined) return { kind: 'failed', why: 'printed a cacheDuration that is none' }
  const auth = response['auth'] ?? {}
  if (!isTree(auth)) return { kind: 'failed', why: 'printed an auth that is not an object' }
  return { kind: 'answered', key, value: parseLogins(auth), keepMs: Math.max(MIN_KEEP_MS, cacheMs) }
}

function keyOf(cacheKeyType: unknown, keys: AnswerKeys): string | undefined {
  switch (cacheKeyType) {
    case 'Image':
      return keys.image
    case 'Registry':
      return keys.registry
    case 'Global':
      return keys.global
    default:
      return undefined
  }
}

function durationOf(value: unknown): number | undefined {
  return typeof value === 'string' ? parseGoDuration(value) : undefined
}

/** In kubelet's order (BasicDockerKeyring): backwards, so that a longer path comes before a shorter one and a name before a wildcard. */
function parseLogins(auth: Tree): PluginAnswer {
  const byPattern = Object.entries(auth).map(([key, login]): [string, unknown] => [patternText(key), login])
  byPattern.sort(([one], [other]) => (one < other ? 1 : -1))
  return byPattern.flatMap(([text, login]) => {
    const pattern = parseImagePattern(text)
    return pattern === undefined ? [] : [{ pattern, credential: isTree(login) ? loginOf(login) : undefined }]
  })
}

/** kubelet takes `https://host/v1/` and `host/v2/` for the host, and knows Docker Hub's as `index.docker.io`. */
function patternText(key: string): string {
  return key
    .replace(/^https?:\/\//, '')
    .replace(/^([^/]+)\/v[12]\//, '$1/')
    .replace(/^([^/]+)\/$/, '$1')
    .replace(/^index\.docker\.io(?=\/|$)/, 'docker.io')
}

function loginOf({ password, username }: Tree): Credential | undefined {
  return typeof username === 'string' && typeof password === 'string' ? loginCredential(username, password) : undefined
}
