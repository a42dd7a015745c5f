import { Type, TypeGuard, type Static, type TObject, type TProperties, type TSchema } from '@sinclair/typebox'
import { DURATION_PATTERN, SIZE_PATTERN } from './units.ts'

/** What a string means, beyond being one; validate.ts checks it and resolve.ts turns it into its internal form. */
export type ValueKind = 'duration' | 'size' | 'address' | 'registry-name' | 'url' | 'path' | 'secret-path'

/** Largest delay that a Node timer holds, in milliseconds (2^31 - 1, about 24 days); a longer one would fire at once. */
export const MAX_DURATION_MS = 2 ** 31 - 1

const table = <T extends TProperties>(description: string, properties: T): TObject<T> =>
  Type.Object(properties, { additionalProperties: false, default: {}, description })

const text = (value: string, description: string) => Type.String({ default: value, description })

const duration = (value: string, description: string, options: { positive?: boolean } = {}) =>
  Type.String({
    default: value,
    description,
    pattern: DURATION_PATTERN,
    'x-kind': 'duration',
    'x-positive': options.positive ?? false,
  })

const size = (value: string, description: string) =>
  Type.String({ default: value, description, pattern: SIZE_PATTERN, 'x-kind': 'size' })

const addresses = (value: readonly string[], description: string, minItems = 0) =>
  Type.Array(Type.String({ 'x-kind': 'address' }), { default: value, description, minItems })

const filePath = (description: string) => Type.String({ default: '', description, 'x-kind': 'path' })

const RegistrySchema = Type.Object(
  {
    host: Type.Optional(
      Type.String({
        description:
          'Where the registry really is: http:// or https://, host, port, and a path prefix if it has one. "https://<name>" unless set; "*" needs one.',
        'x-kind': 'url',
        'x-default': '"https://<name>"',
      }),
    ),
    username: text('', "User name of the node's own credential; every local caller may read what it may read."),
    password_file: Type.String({
      default: '',
      description:
        'File that holds the password (a final line break is ignored), or "env:NAME" for an environment variable. Never the password itself.',
      'x-kind': 'secret-path',
    }),
    tls: table('How to speak TLS with it. Paths are PEM files.', {
      ca: filePath("Certificate authorities to trust instead of the system's."),
      cert: filePath('Client certificate.'),
      key: filePath("The client certificate's key."),
      skip_verify: Type.Boolean({ default: false, description: 'Trust any certificate. For tests only.' }),
      server_name: text('', 'Name to expect in the certificate, when it is not the host.'),
    }),
  },
  { additionalProperties: false },
)

const OriginSchema = Type.Object(
  {
    type: Type.Literal('oci-layout', { description: 'Kind of origin. "oci-layout": a directory is a registry.' }),
    path: Type.String({
      minLength: 1,
      description: 'An OCI image layout, or a directory of layouts named by repository.',
      'x-kind': 'path',
    }),
  },
  { additionalProperties: false },
)

/** The whole configuration as TOML holds it: type, default, validation and documentation of every key. */
export const ConfigSchema = table('Configuration of shoal.', {
  mirror: table('The mirror: what container runtimes talk to.', {
    listen: addresses(
      ['127.0.0.1:65001', '127.0.0.1:4001'],
      'Addresses to listen on: "host:port", "[v6]:port" or "unix:/path/of.sock". Port 0 takes any free one.',
      1,
    ),
    default_registry: Type.String({
      default: 'docker.io',
      description: 'Registry or origin for requests that name none.',
      'x-kind': 'registry-name',
    }),
    drain_timeout: duration('15s', 'How long running answers may take to finish after SIGTERM.'),
  }),
  health: table('Health checks and metrics: /server/ping, /healthy, /readyz, /metrics.', {
    listen: addresses(['127.0.0.1:40901'], 'Addresses to listen on; an empty list turns the listener off.'),
  }),
  admin: table('The admin API.', {
    listen: addresses(
      [],
      'Addresses besides the unix socket admin.sock in the state directory, which is always there.',
    ),
  }),
  state: table('What is kept between runs.', {
    path: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          'Directory of the cache. "/var/lib/shoal" for root; otherwise $XDG_STATE_HOME/shoal, which is ~/.local/state/shoal when that is not set.',
        'x-kind': 'path',
        'x-default': '"/var/lib/shoal"',
      }),
    ),
  }),
  store: table('The chunk store.', {
    max_bytes: size('0', 'Most the cache may hold. 0: 80 % of what is free on its disk at first start.'),
    min_free_bytes: size('2GiB', 'What the cache leaves free on its disk, whatever max_bytes says.'),
    memory_bytes: size('64MiB', 'Most memory for recently streamed blocks. 0: none.'),
  }),
  manifests: table('Manifests that were asked for by tag.', {
    tag_ttl: duration('1m', 'How long a tag is believed before the origin is asked again. 0: ask every time.'),
    serve_stale: Type.Boolean({
      default: true,
      description: 'Answer with the last known manifest while the origin is down.',
    }),
  }),
  upstream: table('Connections to origins.', {
    connect_timeout: duration('5s', 'Longest wait for a connection, TLS included.', { positive: true }),
    idle_timeout: duration('10s', 'Longest wait for the next byte of an answer.', { positive: true }),
    retries: Type.Integer({
      default: 3,
      minimum: 0,
      maximum: 20,
      description: 'Further attempts after a transport error, a timeout, 429 or 5xx.',
    }),
    max_connections: Type.Integer({
      default: 64,
      minimum: 1,
      maximum: 4096,
      description: 'Most connections to one host.',
    }),
    docker_config: Type.String({
      default: '',
      description:
        'Docker client configuration to take credentials from. Empty: $DOCKER_CONFIG/config.json, or ~/.docker/config.json.',
      'x-kind': 'path',
    }),
  }),
  registries: Type.Record(Type.String(), RegistrySchema, {
    default: {},
    description:
      'Registries by the name that images and clients use; a name with dots is quoted. The public ones (docker.io, ghcr.io, quay.io, registry.k8s.io, gcr.io, public.ecr.aws, mcr.microsoft.com) are there without being listed, and an entry of the same name replaces one. The name "*" stands for any other; requests for a name that is in no entry are refused.',
    'x-example': 'registry.corp.example',
  }),
  origins: Type.Record(Type.String(), OriginSchema, {
    default: {},
    description: 'Origins that are not registries, addressed by their name as if it were one.',
    'x-example': 'images',
  }),
  log: table('Logging, as JSON lines on stderr.', {
    level: Type.Union(
      [
        Type.Literal('debug'),
        Type.Literal('info'),
        Type.Literal('warn'),
        Type.Literal('error'),
        Type.Literal('silent'),
      ],
      { default: 'info', description: 'Least important level that is written.' },
    ),
    access: Type.Boolean({ default: false, description: 'One line for every answered request.' }),
  }),
})

/** The configuration in TOML's own terms, defaults filled in. */
export type RawConfig = Static<typeof ConfigSchema>
export type RawRegistry = Static<typeof RegistrySchema>
export type LogLevel = RawConfig['log']['level']

/** The schema of `key` inside a table of `schema`. Undefined: no such key. */
export function childSchema(schema: TSchema, key: string): TSchema | undefined {
  if (TypeGuard.IsObject(schema)) return Object.hasOwn(schema.properties, key) ? schema.properties[key] : undefined
  return entrySchema(schema)
}

/** What every entry of a table with free names looks like. Undefined: `schema` is no such table. */
export function entrySchema(schema: TSchema): TSchema | undefined {
  return TypeGuard.IsRecord(schema) ? Object.values(schema.patternProperties)[0] : undefined
}

/** The fixed keys of a table, in the order in which they are documented. */
export function keysOf(schema: TSchema): [string, TSchema][] {
  return TypeGuard.IsObject(schema) ? Object.entries(schema.properties) : []
}

export function schemaAt(path: readonly string[]): TSchema | undefined {
  return path.reduce<TSchema | undefined>(
    (schema, key) => (schema === undefined ? undefined : childSchema(schema, key)),
    ConfigSchema,
  )
}

/** One of our own annotations (`x-...`), when it is a string. */
export function annotation(schema: TSchema, name: 'x-default' | 'x-example'): string | undefined {
  const value: unknown = schema[name]
  return typeof value === 'string' ? value : undefined
}

export function kindOf(schema: TSchema): ValueKind | undefined {
  return schema['x-kind'] as ValueKind | undefined
}
