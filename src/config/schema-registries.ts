import { Type, type Static } from '@sinclair/typebox'
import {
  choice,
  duration,
  entry,
  flag,
  headers,
  optional,
  required,
  secret,
  table,
  tables,
  text,
  tls,
} from './schema-parts.ts'

/** The words of containerd's hosts.toml. */
const CAPABILITIES = ['pull', 'resolve'] as const

/** Names and defaults are nydusd's (storage backend `registry`, `mirrors`), which has durations as whole seconds. */
const MirrorSchema = entry({
  host: required('url', 'Where the mirror is: http:// or https://, host and port.', {
    sample: 'http://10.0.0.5:5000',
  }),
  headers: headers({ 'X-Dragonfly-Registry': 'https://registry.corp.example' }),
  ping_url: optional('url', 'Asked whether the mirror is back. Empty: "<host>/v2".'),
  health_check_interval: duration('5s', 'Time between two pings of a mirror that failed.', {
    positive: true,
    seconds: true,
  }),
  failure_limit: Type.Integer({
    default: 5,
    minimum: 1,
    maximum: 255,
    description: 'Failures after which the mirror is left alone until it answers a ping.',
  }),
  health_check_pause_elapsed: duration('5m', 'Pings pause when nothing was asked for this long.', {
    positive: true,
    seconds: true,
  }),
  auth_through: flag(
    true,
    'Whether the mirror also answers authentication. If not, it only gets what the registry granted.',
  ),
  override_path: flag(false, 'Whether the path of host is the root of the API; otherwise /v2 is added to it.'),
  capabilities: Type.Array(choice(CAPABILITIES, 'One thing to ask for.'), {
    default: CAPABILITIES,
    minItems: 1,
    description: 'What it is asked for. "pull": blobs, and manifests by digest; "resolve": manifests by tag.',
  }),
  tls: tls(),
})

/** Names and defaults are nydusd's (`proxy`), which has durations as whole seconds. */
const ProxySchema = table('An HTTP proxy through which the registry is reached.', {
  url: optional('url', 'Where the proxy is. Empty: none.'),
  ping_url: optional('url', 'Asked whether the proxy works. Empty: it is taken to.'),
  fallback: flag(true, 'Whether a request that the proxy fails goes to the registry directly.'),
  check_interval: duration('5s', 'Time between two pings.', { positive: true, seconds: true }),
  check_pause_elapsed: duration('5m', 'Pings pause when nothing was asked for this long.', {
    positive: true,
    seconds: true,
  }),
  use_http: flag(
    false,
    'Give the proxy http: URLs of an https registry, so that it can cache; it goes on with https itself.',
  ),
})

export const RegistrySchema = entry({
  host: Type.Optional(
    Type.String({
      description:
        'Where the registry really is: http:// or https://, host, port, and a path prefix if it has one. "https://<name>" unless set; "*" needs one.',
      'x-kind': 'url',
      'x-default': '"https://<name>"',
    }),
  ),
  username: text('', "User name of the node's own credential; every local caller may read what it may read."),
  password_file: secret('password'),
  visibility: choice(
    ['auto', 'public', 'private', 'shared'],
    'Who may read what came from it. "auto": proven place by place; "public": everybody, and no credential is sent; "private": each caller with its own credential; "shared": everybody, with the node\'s credential.',
    { default: 'auto' },
  ),
  tls: tls(),
  proxy: ProxySchema,
  mirrors: tables(
    'Servers that hold the same blobs, asked in this order before the registry itself. Durations may be whole numbers of seconds, as in the configuration of nydusd.',
    MirrorSchema,
  ),
})

export type RawRegistry = Static<typeof RegistrySchema>
export type RawMirror = Static<typeof MirrorSchema>
export type RawProxy = Static<typeof ProxySchema>
