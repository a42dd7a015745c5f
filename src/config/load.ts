import path from 'node:path'
import process from 'node:process'
import { ShoalError, formatPath, isTree, mergeTrees, newTree, valueAt, type KeyPath } from '../core/index.ts'
import { completeConfig, defaultStatePath } from './complete.ts'
import type { Config } from './config.ts'
import { readFiles } from './files.ts'
import { ENV_FILE, envLayers, layerOf, readFileLayer, setLayers, type Layer } from './layers.ts'
import { nearestKey } from './nearest.ts'
import type { Problem } from './problem.ts'
import { checkRelations } from './relations.ts'
import { resolveConfig } from './resolve.ts'
import { ownName, schemaAt } from './schema-walk.ts'
import type { RawConfig } from './schema.ts'
import { validate } from './validate.ts'

/** Read when neither --config nor $SHOAL_CONFIG names a file. It need not exist. */
export const DEFAULT_CONFIG_FILE = '/etc/shoal/shoal.toml'

/** Keys of origins elsewhere that hold a secret, and ours that name its file. */
const SECRETS_IN_CLEAR: ReadonlyMap<unknown, string> = new Map([
  ['access_key_secret', 'secret_access_key_file'],
  ['secret_access_key', 'secret_access_key_file'],
  ['session_token', 'session_token_file'],
])

export interface LoadOptions {
  /** Must exist when given. */
  readonly file?: string
  /** Default: process.env. */
  readonly env?: NodeJS.ProcessEnv
  /** `key=value`, the strongest layer; later ones win. */
  readonly set?: readonly string[]
  /** What is read when nothing names a file. Default: DEFAULT_CONFIG_FILE. */
  readonly defaultFile?: string
  /** What relative paths outside the file are relative to. Default: the process's. */
  readonly cwd?: string
  /** Whether state.path defaults to the system's place. Default: whether the process is root. */
  readonly isRoot?: boolean
}

export interface LoadedConfig {
  readonly config: Config
  /** The file that was read; undefined when there was none. */
  readonly file: string | undefined
  /** What the configuration was read from: the file, and the secrets and certificates that it names. */
  readonly files: readonly string[]
  /** Sentences for the log: nothing is wrong, but somebody should know. */
  readonly warnings: readonly string[]
  /** The same configuration in TOML's terms, nothing left open, for printConfig(). Holds no secret. */
  readonly effective: RawConfig
}

/**
 * File, then SHOAL_ variables, then `set`; each layer over the one before. Throws ERR_CONFIG_INVALID whose message has one line for
 * every problem: where it is written, the key, what is wrong; `details.problems` has the same as data.
 */
export async function loadConfig(options: LoadOptions = {}): Promise<LoadedConfig> {
  const env = options.env ?? process.env
  const cwd = options.cwd ?? process.cwd()
  const fileLayer = await findFile(options, env)
  const set = setLayers(options.set ?? [], cwd)
  const layers = [...(fileLayer === undefined ? [] : [fileLayer.layer]), ...envLayers(env, cwd), ...set.layers]
  const { valid, problems, unknown } = validate(layers.map(layer => layer.tree).reduce(mergeTrees, newTree()))

  const resolvePath = (at: KeyPath, value: string): string => path.resolve(layerOf(layers, at)?.baseDir ?? cwd, value)
  const statePath = defaultStatePath(env, options.isRoot ?? process.getuid?.() === 0)
  const effective = completeConfig(valid, { resolvePath, statePath })
  const files = await readFiles(effective, env)
  const all = [
    ...set.problems,
    ...unknown.map(at => explainUnknown(at, layerOf(layers, at))),
    ...problems,
    ...checkRelations(valid),
    ...files.problems,
  ]
  if (all.length > 0) throw invalid(all, layers)

  const config = resolveConfig(effective, files.secretAt)
  const own = fileLayer === undefined ? [] : [path.resolve(cwd, fileLayer.file)]
  return { config, file: fileLayer?.file, files: [...own, ...files.files], warnings: files.warnings, effective }
}

async function findFile(
  options: LoadOptions,
  env: NodeJS.ProcessEnv,
): Promise<{ file: string; layer: Layer } | undefined> {
  const named = options.file ?? (env[ENV_FILE] === '' ? undefined : env[ENV_FILE])
  const file = named ?? options.defaultFile ?? DEFAULT_CONFIG_FILE
  const layer = await readFileLayer(file)
  if (layer !== undefined) return { file, layer }
  if (named === undefined) return undefined
  throw new ShoalError('ERR_CONFIG_INVALID', `${file}: there is no such file`, { details: { file } })
}

function explainUnknown(at: KeyPath, layer: Layer | undefined): Problem {
  const secret = at[0] === 'origins' ? SECRETS_IN_CLEAR.get(at[2]) : undefined
  if (secret !== undefined) return { path: at, message: `is not read: secrets come from files, see ${secret}` }
  const table = schemaAt(at.slice(0, -1))
  const own = table === undefined ? undefined : ownName(table, String(at.at(-1)))
  if (own !== undefined) return { path: at, message: `is another name for ${own}, which is there too` }
  const nearest = (layer?.spell ?? formatPath)(nearestKey(at))
  const isEntry = at.length === 3 && (at[0] === 'registries' || at[0] === 'origins')
  const hint = isEntry && isTree(valueAt(layer?.tree ?? newTree(), at)) ? '; names with dots are quoted' : ''
  return { path: at, message: `unknown key; the nearest is ${nearest}${hint}` }
}

function invalid(problems: readonly Problem[], layers: readonly Layer[]): ShoalError {
  const described = problems.map(({ path: at, message }) => {
    const where = at.length === 0 ? undefined : (layerOf(layers, at)?.describe(at) ?? 'default')
    return { where, key: formatPath(at), message }
  })
  const lines = described.map(({ where, key, message }) =>
    where === undefined ? message : `${where}: ${key}: ${message}`,
  )
  const title =
    problems.length === 1 ? 'the configuration is invalid' : `the configuration has ${problems.length} problems`
  return new ShoalError('ERR_CONFIG_INVALID', `${title}:\n${lines.map(line => `  ${line}`).join('\n')}`, {
    details: { problems: described },
  })
}
