import { describeError, errorCode, ShoalError } from '../../core/index.ts'

/**
 * What a mirror is asked without, when a token service that is not its own fails: a refusal, so that the failure does not count against the
 * mirror. All that is no failure of a server stays what it is.
 */
export function withoutToken(error: unknown, host: string): unknown {
  const code = errorCode(error)
  if (code?.startsWith('ERR_UPSTREAM_') !== true || code === 'ERR_UPSTREAM_AUTH') return error
  return new ShoalError('ERR_UPSTREAM_AUTH', `no token for ${host} to be had: ${describeError(error)}`, {
    cause: error,
    details: { host, status: 401 },
  })
}
