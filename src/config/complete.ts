import os from 'node:os'
import path from 'node:path'
import { mergeTrees, newTree, normaliseRegistry, replaceAt, treeOf, type KeyPath, type Tree } from '../core/index.ts'
import { ENV_SECRET } from './files.ts'
import { ANY_REGISTRY } from './relations.ts'
import { kindOf, stringsOf } from './schema-walk.ts'
import type { RawConfig } from './schema.ts'

/** Registries that do not answer under the name that images use. */
const REAL_HOSTS: Readonly<Record<string, string>> = { 'docker.io': 'https://registry-1.docker.io' }

const ROOT_STATE_PATH = '/var/lib/shoal'

/** Where the state is kept unless configured: for root the system's place, for others the XDG base directory specification's. */
export function defaultStatePath(env: NodeJS.ProcessEnv, isRoot: boolean): string {
  if (isRoot) return ROOT_STATE_PATH
  const xdg = env['XDG_STATE_HOME'] ?? ''
  // The specification has relative paths ignored.
  return path.join(path.isAbsolute(xdg) ? xdg : path.join(env['HOME'] ?? os.homedir(), '.local', 'state'), 'shoal')
}

/** A registry's host unless configured. */
export function defaultHost(name: string): string {
  const normal = normaliseRegistry(name) ?? name
  return REAL_HOSTS[normal] ?? `https://${normal}`
}

export interface CompleteContext {
  /** The absolute path that the value of a key means. */
  readonly resolvePath: (path: KeyPath, value: string) => string
  /** What state.path is unless configured. */
  readonly statePath: string
}

/** `raw` with what depends on circumstances filled in: state.path, the registries' hosts, and every path absolute. */
export function completeConfig(raw: RawConfig, { resolvePath, statePath }: CompleteContext): RawConfig {
  let tree: Tree = mergeTrees(treeOf(['state', 'path'], statePath), newTree(Object.entries(raw)))
  for (const [name, entry] of Object.entries(raw.registries)) {
    if (entry.host === undefined && name !== ANY_REGISTRY)
      tree = mergeTrees(tree, treeOf(['registries', name, 'host'], defaultHost(name)))
  }
  for (const [at, schema, value] of stringsOf(raw)) {
    const kind = kindOf(schema)
    if (value === '' || (kind !== 'path' && kind !== 'pem' && kind !== 'secret-path')) continue
    if (kind === 'secret-path' && value.startsWith(ENV_SECRET)) continue
    tree = replaceAt(tree, at, resolvePath(at, value))
  }
  return tree as RawConfig
}
