import { Type, type Static, type TObject, type TOptional, type TProperties, type TSchema } from '@sinclair/typebox'
import { DURATION_PATTERN, SIZE_PATTERN } from './units.ts'

/** What a string means, beyond being one; kinds.ts checks it and resolve.ts turns it into its internal form. */
export type ValueKind =
  | 'address'
  | 'digest'
  | 'duration'
  | 'header-value'
  | 'host-pattern'
  | 'network'
  | 'origin-url'
  | 'path'
  | 'pem'
  | 'regex'
  | 'registry-name'
  | 'repository'
  | 'secret-path'
  | 'size'
  | 'socket'
  | 'url'
  | 'url-path'

/** What the free names of a table are. */
export type NameKind = 'host' | 'header'

interface Annotations {
  /** In place of the default, in the commented examples of config/shoal.toml. */
  readonly sample?: unknown
}

/** Largest delay that a Node timer holds, in milliseconds (2^31 - 1, about 24 days); a longer one would fire at once. */
export const MAX_DURATION_MS = 2 ** 31 - 1

export const table = <T extends TProperties>(description: string, properties: T): TObject<T> =>
  Type.Object(properties, { additionalProperties: false, default: {}, description })

/** An entry of a table with free names, or of a list: it has no default. */
export const entry = <T extends TProperties>(properties: T): TObject<T> =>
  Type.Object(properties, { additionalProperties: false })

/** `[[...]]`; none unless configured. */
export const tables = <T extends TProperties>(description: string, item: TObject<T>) =>
  Type.Array(item, { default: [], description })

export const text = (value: string, description: string, { sample }: Annotations = {}) =>
  Type.String({ default: value, description, 'x-sample': sample })

export const flag = (value: boolean, description: string) => Type.Boolean({ default: value, description })

/** A string of some kind. '' stands for none. */
export const optional = (kind: ValueKind, description: string, { sample }: Annotations = {}) =>
  Type.String({ default: '', description, 'x-kind': kind, 'x-sample': sample })

export const required = (kind: ValueKind | undefined, description: string, { sample }: Annotations = {}) =>
  Type.String({
    minLength: 1,
    description,
    ...(kind === undefined ? {} : { 'x-kind': kind }),
    'x-sample': sample,
  })

export const strings = (
  kind: ValueKind,
  value: readonly string[],
  description: string,
  options: { minItems?: number; lone?: boolean } = {},
) =>
  Type.Array(Type.String({ minLength: 1, 'x-kind': kind }), {
    default: value,
    description,
    minItems: options.minItems ?? 0,
    'x-lone': options.lone ?? false,
  })

/** One of `values`. Without a default, it is required. */
export const choice = <const T extends readonly string[]>(
  values: T,
  description: string,
  options: { default?: T[number]; sample?: T[number] } = {},
) =>
  Type.Unsafe<T[number]>(
    Type.Union(
      values.map(value => Type.Literal(value)),
      {
        description,
        ...(options.default === undefined ? {} : { default: options.default }),
        'x-sample': options.sample,
      },
    ),
  )

interface DurationOptions {
  readonly positive?: boolean
  /** Whether a whole number stands for seconds, as in nydusd's configuration. */
  readonly seconds?: boolean
}

export const duration = (value: string, description: string, { positive, seconds }: DurationOptions = {}) =>
  Type.String({
    default: value,
    description,
    pattern: DURATION_PATTERN,
    'x-kind': 'duration',
    'x-positive': positive ?? false,
    'x-seconds': seconds ?? false,
  })

export const size = (value: string, description: string) =>
  Type.String({ default: value, description, pattern: SIZE_PATTERN, 'x-kind': 'size' })

export const secret = (what: string) =>
  optional(
    'secret-path',
    `File that holds the ${what} (a final line break is ignored), or "env:NAME" for an environment variable. Never the ${what} itself.`,
  )

export const headers = (sample: Record<string, string> = {}) =>
  Type.Record(Type.String(), Type.Array(Type.String({ 'x-kind': 'header-value' }), { minItems: 1, 'x-lone': true }), {
    default: {},
    description:
      'Headers to send with every request, by name: a string, or a list of strings for several lines. None that carries a credential.',
    'x-names': 'header',
    'x-sample': sample,
  })

export const tls = () =>
  table('How to speak TLS with it. Paths are PEM files.', {
    ca: strings('pem', [], 'Certificate authorities to trust besides the public ones: a file, or a list of files.', {
      lone: true,
    }),
    cert: optional('pem', 'Client certificate.'),
    key: optional('pem', "The client certificate's key."),
    skip_verify: flag(false, 'Trust any certificate. For tests only.'),
    server_name: text('', 'Name to expect in the certificate, when it is not the host.'),
  })

/** A key that only some of the types of its table have, as told by the table's key `type`. Its default holds for these types alone. */
export const onlyFor = <T extends TSchema>(types: readonly string[], schema: T, aliases: readonly string[] = []) =>
  Type.Optional({ ...schema, 'x-types': types, 'x-aliases': aliases } as T) as TOptional<T>

export type RawTls = Static<ReturnType<typeof tls>>
