import fs from 'node:fs/promises'
import path from 'node:path'
import { normaliseRegistry, ShoalError, systemCode } from '../../core/index.ts'
import { PUBLIC_TLS } from '../net/tls.ts'
import type { TlsOptions } from '../options.ts'
import type { FileStates } from './file-states.ts'
import { parseHostsFile, REGISTRY_ITSELF, type ParsedHosts } from './hosts-file.ts'

/** The directory for all registries that have none. */
export const DEFAULT_HOST = '_default'

/** What is in the directory of one registry; no certificate has been read yet. */
export interface ScannedHost {
  /** Normalised, or DEFAULT_HOST. */
  readonly registry: string
  /** The hosts.toml, or the directory without one. */
  readonly file: string
  /** ERR_CONFIG_INVALID: it cannot be used. */
  readonly hosts: ParsedHosts | ShoalError
}

const FILE = 'hosts.toml'
/** Bytes. No real one has more than a few thousand. */
const MAX_FILE_BYTES = 1024 * 1024

/**
 * Finds the directory of each registry and reads its hosts.toml, with the state of all that is looked at noted in `states`. `root` may be
 * several, separated by colons. Throws ERR_CONFIG_INVALID when one of them cannot be read.
 */
export async function scanHosts(states: FileStates, root: string): Promise<ScannedHost[]> {
  const hosts = new Map<string, ScannedHost>()
  for (const folder of root.split(':').filter(part => part !== '')) {
    for (const [registry, directory] of await findDirectories(states, path.resolve(folder))) {
      if (!hosts.has(registry)) hosts.set(registry, await scanHost(states, registry, directory))
    }
    // It answers for every other registry, so nobody looks further.
    if (hosts.has(DEFAULT_HOST)) break
  }
  return [...hosts.values()]
}

/** The directory of each registry that has one below `root`. That it is there decides, not what is in it. */
async function findDirectories(states: FileStates, root: string): Promise<Map<string, string>> {
  const found = new Map<string, { readonly rank: number; readonly directory: string }>()
  for (const name of await listRoot(states, root)) {
    const { rank, registry } = registryOf(name)
    const directory = path.join(root, name)
    if (registry === undefined || (found.get(registry)?.rank ?? Infinity) <= rank) continue
    if (await isDirectory(directory)) found.set(registry, { rank, directory })
  }
  return new Map([...found].map(([registry, { directory }]) => [registry, directory]))
}

async function listRoot(states: FileStates, root: string): Promise<string[]> {
  await states.note(root)
  try {
    return (await fs.readdir(root)).sort()
  } catch (error: unknown) {
    if (systemCode(error) === 'ENOENT') return []
    const what = `${root} cannot be read (${systemCode(error) ?? 'unknown'})`
    throw new ShoalError('ERR_CONFIG_INVALID', what, { cause: error, details: { file: root } })
  }
}

/** Which registry a directory is for. Of several for the same, the lowest rank counts: `host_port_`, `host:port`, then its other names. */
function registryOf(name: string): { readonly rank: number; readonly registry: string | undefined } {
  if (name === DEFAULT_HOST) return { rank: 0, registry: name }
  const spelled = name.replace(/_(\d+)_$/, ':$1')
  const registry = normaliseRegistry(spelled)
  if (registry !== spelled) return { rank: 2, registry }
  return { rank: spelled === name ? 1 : 0, registry }
}

/** A link that leads nowhere is none; whatever else cannot be looked at is one, and will turn out to be unusable. */
async function isDirectory(directory: string): Promise<boolean> {
  try {
    return (await fs.stat(directory)).isDirectory()
  } catch (error: unknown) {
    return systemCode(error) !== 'ENOENT'
  }
}

async function scanHost(states: FileStates, registry: string, directory: string): Promise<ScannedHost> {
  const file = path.join(directory, FILE)
  await states.note(directory)
  await states.note(file)
  try {
    const text = await readSmallFile(file)
    const hosts = text === '' ? await findCertificates(directory) : parseHostsFile(text, { file, directory })
    for (const { tls } of hosts.namedTls) for (const certificate of filesOf(tls)) await states.note(certificate)
    return { registry, file: text === '' ? directory : file, hosts }
  } catch (error: unknown) {
    if (error instanceof ShoalError) return { registry, file, hosts: error }
    const what = `${file}: cannot be read (${systemCode(error) ?? 'unknown'})`
    return {
      registry,
      file,
      hosts: new ShoalError('ERR_CONFIG_INVALID', what, { cause: error, details: { file } }),
    }
  }
}

/** '' when there is none, which is the same as an empty one. */
async function readSmallFile(file: string): Promise<string> {
  try {
    const stats = await fs.stat(file)
    if (!stats.isFile()) throw new ShoalError('ERR_CONFIG_INVALID', `${file}: not a file`)
    if (stats.size > MAX_FILE_BYTES) {
      throw new ShoalError('ERR_CONFIG_INVALID', `${file}: larger than ${MAX_FILE_BYTES} bytes`)
    }
    return await fs.readFile(file, 'utf8')
  } catch (error: unknown) {
    if (systemCode(error) === 'ENOENT') return ''
    throw error
  }
}

/** Docker's way: every `*.crt` is an authority, every `X.cert` with `X.key` a client certificate, all for the registry itself. */
async function findCertificates(directory: string): Promise<ParsedHosts> {
  const names = (await fs.readdir(directory)).sort()
  const ending = (end: string): string[] =>
    names.filter(name => name.endsWith(end)).map(name => path.join(directory, name))
  const ca = ending('.crt')
  const clients = ending('.cert').map(cert => ({ cert, key: cert.replace(/cert$/, 'key') }))
  return {
    ...(ca.length === 0 && clients.length === 0
      ? {}
      : { server: { ...REGISTRY_ITSELF, tls: { ...PUBLIC_TLS, ca, clients } } }),
    mirrors: [],
    namedTls: [
      ...ca.map(authority => ({ at: directory, tls: { ...PUBLIC_TLS, ca: [authority] } })),
      ...clients.map(client => ({ at: directory, tls: { ...PUBLIC_TLS, clients: [client] } })),
    ],
    unknown: [],
  }
}

export function filesOf({ ca, clients }: TlsOptions): string[] {
  return [...ca, ...clients.flatMap(({ cert, key }) => (key === undefined ? [cert] : [cert, key]))]
}
