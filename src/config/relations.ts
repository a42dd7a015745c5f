import { normaliseRegistry, formatKey, formatPath, type KeyPath } from '../core/index.ts'
import { formatListenAddress, parseListenAddress } from './address.ts'
import { isHost } from './kinds.ts'
import type { Problem } from './problem.ts'
import { checkOrigin } from './relations-origins.ts'
import { checkLogin, checkTls } from './relations-parts.ts'
import type { RawRegistry } from './schema-registries.ts'
import type { RawBlobEndpoint, RawConfig, RawRule } from './schema.ts'

/** The entry of `registries` that stands for any name without one. */
export const ANY_REGISTRY = '*'

/** What is wrong between keys that are each right by themselves. */
export function checkRelations(raw: RawConfig): Problem[] {
  return [
    ...checkListeners(raw),
    ...checkNames(raw),
    ...checkBlobs(raw),
    ...checkLogin(['proxy'], raw.proxy),
    ...raw.proxy.rules.flatMap(checkRule),
    ...Object.entries(raw.registries).flatMap(checkRegistry),
    ...Object.entries(raw.origins).flatMap(checkOrigin),
  ]
}

/** Two servers cannot have one address. Port 0 is never the same port. */
function checkListeners(raw: RawConfig): Problem[] {
  const seen = new Map<string, KeyPath>()
  const problems: Problem[] = []
  for (const [path, text] of listenersOf(raw)) {
    const address = parseListenAddress(text)
    if (address === undefined || (address.kind === 'tcp' && address.port === 0)) continue
    const key = formatListenAddress(address)
    const other = seen.get(key)
    if (other !== undefined)
      problems.push({ path, message: `${JSON.stringify(text)} is already in ${formatPath(other)}` })
    else seen.set(key, path)
  }
  return problems
}

function listenersOf(raw: RawConfig): [KeyPath, string][] {
  return [
    ...(['mirror', 'health', 'admin'] as const).flatMap(listener =>
      raw[listener].listen.map((text): [KeyPath, string] => [[listener, 'listen'], text]),
    ),
    ...raw.mirror.blobs.flatMap(({ socket }, index): [KeyPath, string][] =>
      socket === '' ? [] : [[['mirror', 'blobs', index, 'socket'], `unix:${socket}`]],
    ),
  ]
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

function checkBlobs(raw: RawConfig): Problem[] {
  const origins = new Set(Object.keys(raw.origins).map(normaliseRegistry))
  const prefixes = new Map<string, KeyPath>()
  return raw.mirror.blobs.flatMap((endpoint, index) => {
    const path = ['mirror', 'blobs', index]
    const problems = checkBlobEndpoint(path, endpoint)
    if (endpoint.repository === '' && !origins.has(normaliseRegistry(endpoint.origin))) {
      const message = `is missing: ${JSON.stringify(endpoint.origin)} is not in origins, and in a registry blobs have a repository`
      problems.push({ path: [...path, 'repository'], message })
    }
    const other = prefixes.get(endpoint.prefix)
    if (endpoint.prefix !== '' && other !== undefined)
      problems.push({ path: [...path, 'prefix'], message: `is already in ${formatPath(other)}` })
    prefixes.set(endpoint.prefix, path)
    return problems
  })
}

function checkBlobEndpoint(path: KeyPath, { prefix, socket, digest }: RawBlobEndpoint): Problem[] {
  if (prefix === '' && socket === '') return [{ path, message: 'needs prefix or socket' }]
  if (prefix !== '' && socket !== '') return [{ path, message: 'must not have both prefix and socket' }]
  if (socket !== '' && digest === '') return [{ path: [...path, 'socket'], message: 'needs digest beside it' }]
  if (socket === '' && digest !== '')
    return [{ path: [...path, 'digest'], message: 'is for a socket: below a prefix, requests name the blob' }]
  return []
}

function checkRule({ action, redirect }: RawRule, index: number): Problem[] {
  const at = (key: string): KeyPath => ['proxy', 'rules', index, key]
  if (action === 'redirect' && redirect === '')
    return [{ path: at('redirect'), message: 'is missing: the action "redirect" needs to know where to' }]
  if (action !== 'redirect' && redirect !== '')
    return [{ path: at('redirect'), message: `is for the action "redirect", not for "${action}"` }]
  if (redirect !== '' && !redirect.includes('/') && !isHost(redirect))
    return [{ path: at('redirect'), message: 'is neither a host such as "mirror.example:5000" nor has it a "/"' }]
  if (/\/\/[^/]*@/.test(redirect)) return [{ path: at('redirect'), message: 'must not hold credentials' }]
  return []
}

function checkRegistry([name, registry]: [string, RawRegistry]): Problem[] {
  const path = ['registries', name]
  const problems: Problem[] = []
  if (name === ANY_REGISTRY && registry.host === undefined)
    problems.push({ path: [...path, 'host'], message: 'is missing: "*" says where every other registry is taken from' })
  if (registry.visibility === 'public' && registry.username !== '')
    problems.push({ path: [...path, 'username'], message: 'contradicts visibility "public": no credential is sent' })
  return [
    ...problems,
    ...checkLogin(path, registry),
    ...checkTls([...path, 'tls'], registry.tls),
    ...registry.mirrors.flatMap((mirror, index) => checkTls([...path, 'mirrors', index, 'tls'], mirror.tls)),
  ]
}
