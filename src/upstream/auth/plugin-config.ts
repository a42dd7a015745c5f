import { parseDocument } from 'yaml'
import { isTree, ShoalError, type Tree } from '../../core/index.ts'
import { parseGoDuration } from '../hosts/go-duration.ts'
import { parseImagePattern, type ImagePattern } from './image-pattern.ts'
import { isProgramName } from './program-runner.ts'

/** Versions are told apart by nothing that is used here. */
const CONFIG_VERSION = /^kubelet\.config\.k8s\.io\/v1(?:alpha1|beta1)?$/
const PROTOCOL_VERSION = /^credentialprovider\.kubelet\.k8s\.io\/v1(?:alpha1|beta1)?$/

/** One provider of a CredentialProviderConfig. */
export interface PluginConfig {
  /** Of the program. */
  readonly name: string
  readonly matchImages: readonly ImagePattern[]
  /** For answers that do not say how long they hold. */
  readonly defaultCacheMs: number
  readonly apiVersion: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  /** It wants the token of a pod's service account, which a node has none of. */
  readonly needsServiceAccount: boolean
}

/**
 * kubelet's CredentialProviderConfig (kubelet.config.k8s.io/v1), in YAML or JSON, as kubelet itself checks it; fields that it may get later
 * are passed over. Throws ERR_CONFIG_INVALID, naming the field and never its value: `env` may hold secrets.
 */
export function parsePluginConfig(text: string): PluginConfig[] {
  const config = parseYaml(text)
  if (!isTree(config)) throw invalid('not an object')
  if (!CONFIG_VERSION.test(textOf(config, 'apiVersion', '')))
    throw invalid('apiVersion is not kubelet.config.k8s.io/v1')
  if (config['kind'] !== 'CredentialProviderConfig') throw invalid('kind is not CredentialProviderConfig')
  const providers = listOf(config, 'providers', '')
  if (providers.length === 0) throw invalid('providers is empty')
  const plugins = providers.map((provider, nth) => parseProvider(provider, `providers[${nth}]`))
  const names = new Set(plugins.map(({ name }) => name))
  if (names.size < plugins.length) throw invalid('providers has the same name twice')
  return plugins
}

function parseProvider(provider: unknown, at: string): PluginConfig {
  if (!isTree(provider)) throw invalid(`${at} is not an object`)
  const name = textOf(provider, 'name', at)
  if (!isProgramName(name)) throw invalid(`${at}.name is not the name of a program`)
  const matchImages = listOf(provider, 'matchImages', at).map((text, nth) => {
    const pattern = typeof text === 'string' ? parseImagePattern(text) : undefined
    if (pattern === undefined) throw invalid(`${at}.matchImages[${nth}] is not a pattern of images`)
    return pattern
  })
  if (matchImages.length === 0) throw invalid(`${at}.matchImages is empty`)
  const defaultCacheMs = parseGoDuration(textOf(provider, 'defaultCacheDuration', at))
  if (defaultCacheMs === undefined) throw invalid(`${at}.defaultCacheDuration is not a duration such as 10m`)
  const apiVersion = textOf(provider, 'apiVersion', at)
  if (!PROTOCOL_VERSION.test(apiVersion)) throw invalid(`${at}.apiVersion is not credentialprovider.kubelet.k8s.io/v1`)
  const args = listOf(provider, 'args', at).map((arg, nth) => {
    if (typeof arg !== 'string') throw invalid(`${at}.args[${nth}] is not a text`)
    return arg
  })
  const env = Object.fromEntries(
    listOf(provider, 'env', at).map((entry, nth): [string, string] => {
      if (!isTree(entry)) throw invalid(`${at}.env[${nth}] is not an object`)
      return [textOf(entry, 'name', `${at}.env[${nth}]`), textOf(entry, 'value', `${at}.env[${nth}]`)]
    }),
  )
  const { tokenAttributes } = provider
  const needsServiceAccount = isTree(tokenAttributes) && tokenAttributes['requireServiceAccount'] === true
  return { name, matchImages, defaultCacheMs, apiVersion, args, env, needsServiceAccount }
}

function parseYaml(text: string): unknown {
  const document = parseDocument(text, { logLevel: 'error' })
  const [error] = document.errors
  if (error === undefined) return document.toJS()
  // The message quotes the text.
  const line = error.linePos?.[0].line
  throw invalid(`not valid YAML${line === undefined ? '' : ` (line ${line})`}`)
}

function textOf(tree: Tree, key: string, at: string): string {
  const value = tree[key]
  if (typeof value === 'string') return value
  throw invalid(`${at === '' ? key : `${at}.${key}`} is ${value === undefined ? 'missing' : 'not a text'}`)
}

/** Absent is empty. */
function listOf(tree: Tree, key: string, at: string): readonly unknown[] {
  const value = tree[key] ?? []
  if (Array.isArray(value)) return value
  throw invalid(`${at === '' ? key : `${at}.${key}`} is not a list`)
}

function invalid(what: string): ShoalError {
  return new ShoalError('ERR_CONFIG_INVALID', what)
}
