import {
  formatPath,
  isTree,
  locateKeys,
  newTree,
  ShoalError,
  type KeyPath,
  type Tree,
  parseTomlFile,
} from '../../core/index.ts'
import { PUBLIC_TLS } from '../net/tls.ts'
import type { Capability, ExtraHeaders, MirrorOptions, TlsOptions } from '../options.ts'
import {
  booleanFrom,
  capabilitiesFrom,
  clientsFrom,
  countFrom,
  durationFrom,
  filesFrom,
  headerFrom,
  hostUrlFrom,
  pingUrlFrom,
  secondsFrom,
} from './host-values.ts'

/** The last server to ask: what stands at the root of a hosts.toml. */
export interface HostTarget {
  /** As in MirrorOptions. Absent: the registry itself, wherever that is; `overridePath` and `capabilities` are then the ordinary ones. */
  readonly host?: string
  readonly overridePath: boolean
  readonly headers: ExtraHeaders
  readonly tls: TlsOptions
  /** None: it is there to be pushed to. */
  readonly capabilities: readonly Capability[]
  readonly connectTimeoutMs?: number
}

/** One hosts.toml. */
export interface HostsFile {
  /** Absent: the registry itself, as if there were no file. */
  readonly server?: HostTarget
  readonly mirrors: readonly MirrorOptions[]
}

/** Files to be read, and where they are named. */
export interface NamedTls {
  /** `file:line: key`. */
  readonly at: string
  /** One authority, or one client certificate. */
  readonly tls: TlsOptions
}

export interface ParsedHosts extends HostsFile {
  readonly namedTls: readonly NamedTls[]
  /** Keys that nobody knows; containerd passes over them. */
  readonly unknown: readonly { readonly key: string; readonly line?: number }[]
}

/** One table of the file, and how to complain about a key in it. */
interface Table {
  readonly tree: Tree
  readonly path: KeyPath
  readonly directory: string
  /** `shown`: instead of `path`, where that should not be repeated. */
  readonly fail: (path: KeyPath, what: string, shown?: KeyPath) => ShoalError
}

/** A table whose name is the server that it is about. */
interface HostTable extends Table {
  readonly host: string
}

/** nydusd's defaults. */
const HEALTH = { healthCheckIntervalMs: 5_000, failureLimit: 5, healthCheckPauseElapsedMs: 300_000 } as const
/** The registry that a directory is for, as if nothing were said of it. */
export const REGISTRY_ITSELF: HostTarget = {
  overridePath: false,
  headers: {},
  tls: PUBLIC_TLS,
  capabilities: ['pull', 'resolve'],
}
const TARGET_KEYS = ['capabilities', 'ca', 'client', 'skip_verify', 'header', 'override_path', 'dial_timeout']
const ROOT_KEYS = [...TARGET_KEYS, 'server', 'host']
/** containerd's, and those of nydus-snapshotter and nydusd. */
const HOST_KEYS = [
  ...TARGET_KEYS,
  ...['ping_url', 'health_check_interval', 'failure_limit', 'health_check_pause_elapsed', 'auth_through'],
]

/** `file`: how complaints name it; `directory`: what paths in it are relative to. Throws ERR_CONFIG_INVALID: file, line and key, no values. */
export function parseHostsFile(text: string, { directory, file }: { file: string; directory: string }): ParsedHosts {
  const tree = parseTomlFile(file, text)
  const lineOf = locateKeys(text)
  const at = (path: KeyPath, shown = path): string =>
    [[file, lineOf(path)].filter(part => part !== undefined).join(':'), formatPath(shown)].join(': ')
  const fail: Table['fail'] = (path, what, shown) =>
    new ShoalError('ERR_CONFIG_INVALID', `${at(path, shown)} ${what}`, { details: { file } })
  const root: Table = { tree, path: [], directory, fail }
  const hosts = hostTables(root, lineOf)
  const server = readServer(root)
  const mirrors = hosts.map(table => ({ path: table.path, target: readMirror(table) }))
  const targets = [...mirrors, ...(server === undefined ? [] : [{ path: [], target: server }])]
  return {
    ...(server === undefined ? {} : { server }),
    // A host that is only pushed to is none of our business.
    mirrors: mirrors.map(({ target }) => target).filter(({ capabilities }) => capabilities.length > 0),
    namedTls: targets.flatMap(({ path, target: { tls } }) => [
      ...tls.ca.map(ca => ({ at: at([...path, 'ca']), tls: { ...PUBLIC_TLS, ca: [ca] } })),
      ...tls.clients.map(client => ({ at: at([...path, 'client']), tls: { ...PUBLIC_TLS, clients: [client] } })),
    ]),
    unknown: [unknownKeys(root, ROOT_KEYS), ...hosts.map(table => unknownKeys(table, HOST_KEYS))].flat().map(path => {
      const line = lineOf(path)
      return { key: formatPath(path), ...(line === undefined ? {} : { line }) }
    }),
  }
}

/** In the order of the file, which decides who is asked first; a JavaScript object would put `10` before all names. */
function hostTables(root: Table, lineOf: (path: KeyPath) => number | undefined): HostTable[] {
  const hosts = field(root, 'host', value => (isTree(value) ? value : undefined), 'a table') ?? newTree()
  return Object.entries(hosts)
    .map(([name, tree]) => ({ name, path: ['host', name], tree }))
    .sort((a, b) => (lineOf(a.path) ?? 0) - (lineOf(b.path) ?? 0))
    .map(({ name, path, tree }) => {
      const host = hostUrlFrom(name)
      // The name is not repeated: it may hold what must not be in a log.
      if (host === undefined) throw root.fail(path, 'has a name that is not http[s]://host[:port][/path]', ['host'])
      if (!isTree(tree)) throw root.fail(path, 'must be a table')
      return { ...root, tree, path, host }
    })
}

function readServer(root: Table): HostTarget | undefined {
  const server =
    field(root, 'server', value => (value === '' ? '' : hostUrlFrom(value)), 'http[s]://host[:port][/path]') ?? ''
  const target = readTarget(root)
  if (server !== '') return { host: server, ...target }
  const { connectTimeoutMs, headers, tls } = target
  const ordinary =
    Object.keys(headers).length === 0 && tls.ca.length === 0 && tls.clients.length === 0 && !tls.skipVerify
  if (ordinary && connectTimeoutMs === undefined) return undefined
  const { capabilities, overridePath } = REGISTRY_ITSELF
  return { ...target, overridePath, capabilities }
}

function readMirror(table: HostTable): MirrorOptions {
  const seconds = 'seconds, or a duration such as "5s"'
  const pingUrl = field(table, 'ping_url', pingUrlFrom, 'a URL') ?? ''
  // As in nydus-snapshotter, 0 is as good as nothing.
  const positive = (value: number | undefined, otherwise: number): number =>
    value === undefined || value === 0 ? otherwise : value
  return {
    host: table.host,
    ...readTarget(table),
    ...(pingUrl === '' ? {} : { pingUrl }),
    healthCheckIntervalMs: positive(
      field(table, 'health_check_interval', secondsFrom, seconds),
      HEALTH.healthCheckIntervalMs,
    ),
    failureLimit: positive(field(table, 'failure_limit', countFrom, 'a whole number'), HEALTH.failureLimit),
    healthCheckPauseElapsedMs: positive(
      field(table, 'health_check_pause_elapsed', secondsFrom, seconds),
      HEALTH.healthCheckPauseElapsedMs,
    ),
    // Unlike nydusd's mirrors, containerd's answer challenges themselves.
    authThrough: field(table, 'auth_through', booleanFrom, 'true or false') ?? true,
  }
}

/** The keys that a server has as well as a host. */
function readTarget(table: Table): Omit<HostTarget, 'host'> {
  const files = (value: unknown): string[] | undefined => filesFrom(value, table.directory)
  const clients = (value: unknown): TlsOptions['clients'] | undefined => clientsFrom(value, table.directory)
  const connectTimeoutMs = field(table, 'dial_timeout', durationFrom, 'a duration such as "5s"') ?? 0
  return {
    capabilities:
      field(table, 'capabilities', capabilitiesFrom, 'a list of "pull", "resolve", "push" and "referrers"') ??
      REGISTRY_ITSELF.capabilities,
    overridePath: field(table, 'override_path', booleanFrom, 'true or false') ?? false,
    headers: readHeaders(table),
    tls: {
      ca: field(table, 'ca', files, 'a file or a list of files') ?? [],
      clients: field(table, 'client', clients, 'a file, a list of files, or a list of pairs of files') ?? [],
      skipVerify: field(table, 'skip_verify', booleanFrom, 'true or false') ?? false,
    },
    ...(connectTimeoutMs === 0 ? {} : { connectTimeoutMs }),
  }
}

/** By lower-case names, since case means nothing in them: two spellings are one header. */
function readHeaders(table: Table): ExtraHeaders {
  const tree = field(table, 'header', value => (isTree(value) ? value : undefined), 'a table') ?? newTree()
  const inner: Table = { ...table, tree, path: [...table.path, 'header'] }
  const headers = new Map<string, string[]>()
  for (const name of Object.keys(tree)) {
    const values = field(inner, name, value => headerFrom(name, value), 'a header: a string or a list of strings') ?? []
    headers.set(name.toLowerCase(), [...(headers.get(name.toLowerCase()) ?? []), ...values])
  }
  return Object.fromEntries(headers)
}

/** Undefined: the key is not there. */
function field<T>(table: Table, key: string, from: (value: unknown) => T | undefined, what: string): T | undefined {
  const value = table.tree[key]
  if (value === undefined) return undefined
  const found = from(value)
  if (found === undefined) throw table.fail([...table.path, key], `must be ${what}`)
  return found
}

function unknownKeys({ path, tree }: Table, known: readonly string[]): KeyPath[] {
  return Object.keys(tree)
    .filter(key => !known.includes(key))
    .map(key => [...path, key])
}
