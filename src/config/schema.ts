import { Type, type Static } from '@sinclair/typebox'
import { OriginSchema } from './schema-origins.ts'
import {
  choice,
  duration,
  entry,
  flag,
  optional,
  required,
  secret,
  size,
  strings,
  table,
  tables,
  text,
} from './schema-parts.ts'
import { RegistrySchema } from './schema-registries.ts'

const BlobEndpointSchema = entry({
  prefix: optional(
    'url-path',
    'Path below which a blob is at <prefix>/<hex> and <prefix>/sha256:<hex>. Either this or socket.',
    { sample: '/models' },
  ),
  socket: optional('socket', 'Unix socket, an absolute path, on which whatever is asked for is the one blob.'),
  origin: required('registry-name', 'Registry or origin that has the blobs.', { sample: 's3-example' }),
  repository: optional('repository', 'Repository of the blobs. Empty: "blobs"; a registry needs one.'),
  digest: optional('digest', 'The blob of socket.'),
})

const RuleSchema = entry({
  match: required('regex', 'Regular expression, looked for in the URL without its query.', {
    sample: 'blobs/sha256.*',
  }),
  action: choice(
    ['cache', 'direct', 'redirect', 'deny'],
    '"cache": registry blobs come from the cache; "direct": forwarded as it is; "redirect": forwarded elsewhere; "deny": refused.',
    { sample: 'cache' },
  ),
  use_https: flag(false, 'Whether an http: URL goes on as https:.'),
  redirect: text(
    '',
    'Where to, for the action "redirect" alone: a host, or with a "/" in it what takes the place of the match ($1 is its first group).',
  ),
})

const CredentialPluginSchema = entry({
  config: required('path', "The plugins' CredentialProviderConfig, YAML or JSON.", {
    sample: '/etc/kubernetes/credential-providers.yaml',
  }),
  bin_dir: required('path', 'Directory of the programs that it names.', { sample: '/usr/libexec/kubernetes/plugins' }),
})

/** The whole configuration as TOML holds it: type, default, validation and documentation of every key. */
export const ConfigSchema = table('Configuration of shoal.', {
  mirror: table('The mirror: what container runtimes talk to.', {
    listen: strings(
      'address',
      ['127.0.0.1:65001', '127.0.0.1:4001'],
      'Addresses to listen on: "host:port", "[v6]:port" or "unix:/path/of.sock". Port 0 takes any free one.',
      { minItems: 1 },
    ),
    default_registry: Type.String({
      default: 'docker.io',
      description: 'Registry or origin for requests that name none.',
      'x-kind': 'registry-name',
    }),
    drain_timeout: duration('15s', 'How long running answers may take to finish after SIGTERM.'),
    hosts: Type.Record(Type.String(), Type.String({ 'x-kind': 'registry-name' }), {
      default: {},
      description:
        'Virtual hosts: the Host header of a request, with or without a port, and the registry or origin that it stands for, such as { "mirror.corp.example" = "registry.corp.example" }.',
      'x-names': 'host',
    }),
    blobs: tables(
      "Blobs for clients that know no registry (nydusd's http-proxy backend): below a path of the mirror, or one blob on a unix socket of its own.",
      BlobEndpointSchema,
    ),
  }),
  health: table('Health checks and metrics: /server/ping, /healthy, /readyz, /metrics.', {
    listen: strings(
      'address',
      ['127.0.0.1:40901', '127.0.0.1:4003'],
      'Addresses to listen on; an empty list turns the listener off.',
    ),
  }),
  admin: table('The admin API.', {
    listen: strings(
      'address',
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
    serve_stale: flag(true, 'Answer with the last known manifest while the origin is down.'),
  }),
  proxy: table('The forward proxy, on the addresses of the mirror: absolute-form requests and CONNECT.', {
    enabled: flag(true, 'Whether there is one.'),
    intercept: strings(
      'host-pattern',
      [],
      'Hosts whose TLS is ended here, with a certificate of the node\'s own authority (shoal proxy-ca): "registry.example", "*.example", "registry.example:8443", or "*" for all. Others are tunnelled.',
    ),
    username: text('', 'User name that clients have to give. Empty: none.'),
    password_file: secret('password'),
    rules: tables(
      'What happens to a request; the first rule that matches counts. Without one, registry blobs are cached and all else is forwarded.',
      RuleSchema,
    ),
  }),
  upstream: table('Connections to origins.', {
    allow_any: flag(false, 'Whether a request may name a registry that is not in the table.'),
    allow_private: strings(
      'network',
      [],
      'Networks (10.0.0.0/8, fd00::/8) or addresses that allow_any may reach although they are private, loopback or link-local.',
    ),
    certs_d: optional(
      'path',
      "Directory of <host>/hosts.toml, such as containerd's /etc/containerd/certs.d, as a further source of registries and mirrors.",
    ),
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
    docker_config: optional(
      'path',
      'Docker client configuration to take credentials from. Empty: $DOCKER_CONFIG/config.json, or ~/.docker/config.json.',
    ),
    credential_plugins: tables('Credential providers as the kubelet has them.', CredentialPluginSchema),
  }),
  registries: Type.Record(Type.String(), RegistrySchema, {
    default: {},
    description:
      'Registries by the name that images and clients use; a name with dots is quoted. The public ones (docker.io, ghcr.io, quay.io, registry.k8s.io, gcr.io, public.ecr.aws, mcr.microsoft.com) are there without being listed, unless "*" is, and an entry of the same name replaces one. The name "*" stands for every name without an entry of its own; without it, requests for such a name are refused.',
    'x-example': 'registry.corp.example',
  }),
  origins: Type.Record(Type.String(), OriginSchema, {
    default: {},
    description:
      'Origins that are not registries, addressed by their name as if it were one. Which keys there are depends on the type.',
  }),
  log: table('Logging, as JSON lines on stderr.', {
    level: choice(['debug', 'info', 'warn', 'error', 'silent'], 'Least important level that is written.', {
      default: 'info',
    }),
    access: flag(false, 'One line for every answered request.'),
  }),
})

/** The configuration in TOML's own terms, defaults filled in. */
export type RawConfig = Static<typeof ConfigSchema>
export type RawBlobEndpoint = Static<typeof BlobEndpointSchema>
export type RawRule = Static<typeof RuleSchema>
export type LogLevel = RawConfig['log']['level']
