import { ShoalError } from '../../core/index.ts'
import type { BucketConfig } from '../options.ts'
import type { RequestOptions } from './object-server.ts'

export interface BucketCredentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
}

/** The node's credentials for a bucket. Safe to call concurrently. */
export interface BucketCredentialSource {
  /** Undefined: there are none, and requests go unsigned. Throws ERR_UPSTREAM_AUTH when there are some that cannot be had. */
  get(options: RequestOptions): Promise<BucketCredentials | undefined>
  /** Others than those that the server has just refused. Undefined: there are no others. Throws as get() does. */
  renew(refused: BucketCredentials | undefined, options: RequestOptions): Promise<BucketCredentials | undefined>
}

/** Always the same. */
export function fixedCredentials(credentials: BucketCredentials | undefined): BucketCredentialSource {
  return { get: () => Promise.resolve(credentials), renew: () => Promise.resolve(undefined) }
}

/** Those of the configuration. Undefined: it has none. Throws ERR_CONFIG_INVALID when it has half of them. */
export function configuredCredentials(name: string, config: BucketConfig): BucketCredentials | undefined {
  const { accessKeyId, secretAccessKey, sessionToken } = config
  if (accessKeyId === undefined && secretAccessKey === undefined && sessionToken === undefined) return undefined
  if (accessKeyId !== undefined && secretAccessKey !== undefined) return { accessKeyId, secretAccessKey, sessionToken }
  throw new ShoalError(
    'ERR_CONFIG_INVALID',
    `origins."${name}" needs both access_key_id and secret_access_key_file, or neither`,
  )
}

export function isSame(one: BucketCredentials | undefined, other: BucketCredentials | undefined): boolean {
  return (
    one?.accessKeyId === other?.accessKeyId &&
    one?.secretAccessKey === other?.secretAccessKey &&
    one?.sessionToken === other?.sessionToken
  )
}
