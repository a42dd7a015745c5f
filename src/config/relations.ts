import { normaliseRegistry, formatKey, formatPath, type KeyPath } from '../core/index.ts'
import { formatListenAddress, parseListenAddress } from './address.ts'
import type { Problem } from './problem.ts'
import type { RawConfig, RawRegistry } from './schema.ts'

/** The entry of `registries` that stands for any name without one. */
export const ANY_REGISTRY = '*'

/** What is wrong between keys that are each right by themselves. */
export function checkRelations(raw: RawConfig): Problem[] {
  return [...checkListeners(raw), ...checkNames(raw), ...Object.entries(raw.registries).flatMap(checkRegistry)]
}

/** Two servers cannot have one address. Port 0 is never the same port. */
function checkListeners(raw: RawConfig): Problem[] {
  const seen = new Map<string, KeyPath>()
  const problems: Problem[] = []
  for (const listener of ['mirror', 'health', 'admin'] as const) {
    const path = [listener, 'listen']
    for (const text of raw[listener].listen) {
      const address = parseListenAddress(text)
      if (address === undefined || (address.kind === 'tcp' && address.port === 0)) continue
      const key = formatListenAddress(address)
      const other = seen.get(key)
      if (other !== undefined)
        problems.push({ path, message: `${JSON.stringify(text)} is already in ${formatPath(other)}` })
      else seen.set(key, path)
    }
  }
  return problems
}

/** Registries and origins share one space of names, since a request may name either. */
function checkNames(raw: RawConfig): Problem[] {
  const seen = new Map<string, KeyPath>()
  const problems: Problem[] = []
  for (const table of ['registries', 'origins'] as const) {
    for (const name of Object.keys(raw[table])) {
      const path = [table, name]
      const normal = table === 'registries' && name === ANY_REGISTRY ? name : normaliseRegistry(name)
      if (normal === undefined) {
        problems.push({
          path,
          message: `${formatKey(name)} is not a name such as "registry.example" or "localhost:5000"`,
        })
        continue
      }
      const other = seen.get(normal)
      if (other !== undefined) problems.push({ path, message: `is the same name as ${formatPath(other)}` })
      else seen.set(normal, path)
    }
  }
  return problems
}

function checkRegistry([name, registry]: [string, RawRegistry]): Problem[] {
  const at = (...keys: string[]): KeyPath => ['registries', name, ...keys]
  const problems: Problem[] = []
  if (name === ANY_REGISTRY && registry.host === undefined)
    problems.push({ path: at('host'), message: 'is missing: "*" says where every other registry is taken from' })
  if (registry.username !== '' && registry.password_file === '')
    problems.push({ path: at('username'), message: 'needs password_file beside it' })
  if (registry.username === '' && registry.password_file !== '')
    problems.push({ path: at('password_file'), message: 'needs username beside it' })
  if (registry.username.includes(':'))
    problems.push({ path: at('username'), message: 'must not contain ":" (RFC 7617, section 2)' })
  if (registry.tls.cert !== '' && registry.tls.key === '')
    problems.push({ path: at('tls', 'cert'), message: 'needs tls.key beside it' })
  if (registry.tls.cert === '' && registry.tls.key !== '')
    problems.push({ path: at('tls', 'key'), message: 'needs tls.cert beside it' })
  return problems
}
