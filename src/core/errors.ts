/**
 * Every error that Shoal raises on purpose, by code. `sentence` is what an operator reads in docs/errors.md; `retryable` says whether
 * the same call may succeed later without anyone changing anything. A test keeps docs/errors.md equal to this table.
 */
export const ERROR_TABLE = {
  ERR_BLOB_UNAVAILABLE: {
    sentence: 'No source could deliver the blob: each one failed or was unreachable.',
    retryable: true,
  },
  ERR_CLOSED: {
    sentence: 'The component was used after it had been closed, or while it was closing.',
    retryable: false,
  },
  ERR_CONFIG_INVALID: { sentence: 'The configuration has an unknown key or an unusable value.', retryable: false },
  ERR_DIGEST_INVALID: { sentence: 'The digest is not sha256:<64 hex> or sha512:<128 hex>.', retryable: false },
  ERR_DIGEST_MISMATCH: {
    sentence: 'The bytes received do not hash to the digest they were asked for by.',
    retryable: true,
  },
  ERR_LIMIT_EXCEEDED: {
    sentence: 'An answer or a request is larger than Shoal accepts for its kind.',
    retryable: false,
  },
  ERR_NAME_INVALID: {
    sentence: 'The repository name breaks the grammar of the OCI distribution specification.',
    retryable: false,
  },
  ERR_ORIGIN_UNKNOWN: {
    sentence: 'The request names a registry that is not in the configured table.',
    retryable: false,
  },
  ERR_RANGE_UNSATISFIABLE: { sentence: 'The requested range lies outside the blob.', retryable: false },
  ERR_REFERENCE_INVALID: { sentence: 'The manifest reference is neither a tag nor a digest.', retryable: false },
  ERR_STORE_CORRUPT: {
    sentence: 'Something in the state directory is not what the index says it is.',
    retryable: true,
  },
  ERR_STORE_FULL: {
    sentence: 'The store has reached its hard limit and nothing more may be evicted.',
    retryable: true,
  },
  ERR_STORE_IO: {
    sentence: 'The disk refused a read or a write of the store (ENOSPC, EIO, EROFS ...).',
    retryable: true,
  },
  ERR_STORE_LOCKED: { sentence: 'Another process already uses the state directory.', retryable: false },
  ERR_UPSTREAM_AUTH: {
    sentence: 'The origin refused the credentials, or asked for some that nobody has.',
    retryable: false,
  },
  ERR_UPSTREAM_BODY: {
    sentence:
      'The origin answered with other bytes than asked for: wrong length, ignored Range, or a content encoding.',
    retryable: true,
  },
  ERR_UPSTREAM_STATUS: { sentence: 'The origin answered with an HTTP status that is not a success.', retryable: true },
  ERR_UPSTREAM_TIMEOUT: {
    sentence: 'The origin did not connect, answer or send within the configured time.',
    retryable: true,
  },
  ERR_UPSTREAM_TRANSPORT: {
    sentence: 'The connection to the origin failed: DNS, TCP, TLS or a broken body.',
    retryable: true,
  },
} as const satisfies Record<string, { sentence: string; retryable: boolean }>

/** A stable name for a failure; the only thing code may branch on. */
export type ErrorCode = keyof typeof ERROR_TABLE

/** Facts about one failure. Never credentials, never a URL with its query. */
export type ErrorDetails = Readonly<Record<string, unknown>>

/** The one error class. `message` is for people, `code` for programs, `details` for both. */
export class ShoalError extends Error {
  override readonly name = 'ShoalError'
  readonly code: ErrorCode
  readonly details: ErrorDetails

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; details?: ErrorDetails } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.details = options.details ?? {}
  }

  /** Whether the same call may succeed later. */
  get retryable(): boolean {
    return ERROR_TABLE[this.code].retryable
  }
}

/** The Shoal code of `error`, or undefined when it is none of ours. */
export function errorCode(error: unknown): ErrorCode | undefined {
  return error instanceof ShoalError ? error.code : undefined
}

/** Whether `error` says of a host that it sends nothing and answers no ping (`{ hung: true }`), as against one that is only slow. */
export function isHang(error: unknown): boolean {
  return error instanceof ShoalError && error.details['hung'] === true
}

/** The `code` of a Node or library error ('ENOENT', 'UND_ERR_SOCKET' ...), when it has one. */
export function systemCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

/** What was thrown, as an Error: itself, or wrapped when somebody threw something else. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown))
}

/** One line for a person: the message, and the messages of its causes. */
export function describeError(error: unknown): string {
  const parts: string[] = []
  let current: unknown = error
  // A bound on the depth, because causes may form a cycle.
  for (let depth = 0; current instanceof Error && depth < 5; depth += 1) {
    if (current.message !== '' && !parts.includes(current.message)) parts.push(current.message)
    current = current.cause
  }
  return parts.length > 0 ? parts.join(': ') : String(error)
}
