import { ShoalError, normaliseRegistry } from '../core/index.ts'

/** Everything in a request that may say which registry it means, as the client wrote it. */
export interface SaidRegistry {
  /** The `ns` parameter. */
  readonly namespace: string | undefined
  /** X-Dragonfly-Registry. */
  readonly header: string | undefined
  /** Host. */
  readonly host: string | undefined
}

export interface RegistryNameOptions {
  /** For requests that name none. */
  readonly defaultRegistry: string
  /** Registries by the Host, or Host and port, that clients reach them by here; lower case. */
  readonly hosts: ReadonlyMap<string, string>
}

/**
 * The registry that a request means: a key of the table of origins, never an address to dial. `ns` counts before X-Dragonfly-Registry,
 * because it is made for each request while the header mostly stands in a configuration; then come the virtual host and the default.
 * Throws ERR_ORIGIN_UNKNOWN for a name that is none.
 */
export function registryOf({ namespace, header, host }: SaidRegistry, options: RegistryNameOptions): string {
  const said = namespace ?? (header === '' ? undefined : header)
  if (said !== undefined) return nameOrThrow(nameIn(said))
  return nameOrThrow(virtualHost(host, options.hosts) ?? options.defaultRegistry)
}

/** The name as the table has it. Throws ERR_ORIGIN_UNKNOWN, without the text: it may hold a credential. */
export function nameOrThrow(text: string): string {
  const name = normaliseRegistry(text)
  if (name !== undefined) return name
  throw new ShoalError('ERR_ORIGIN_UNKNOWN', 'what the request names is not a registry')
}

/** The registry that clients which ask for `host` mean. Undefined: it is no virtual host. */
export function virtualHost(host: string | undefined, hosts: ReadonlyMap<string, string>): string | undefined {
  if (host === undefined || hosts.size === 0) return undefined
  const name = host.toLowerCase()
  return hosts.get(name) ?? hosts.get(name.replace(/:\d*$/, ''))
}

/** `registry:port` of a bare host or of a URL; the port that goes without saying is dropped. */
function nameIn(text: string): string {
  const match = /^(?:(https?):\/\/)?([^/?#]*)/i.exec(text)
  const scheme = match?.[1]?.toLowerCase()
  const authority = match?.[2] ?? ''
  if (scheme === undefined) return authority
  return authority.replace(scheme === 'https' ? /:443$/ : /:80$/, '')
}
