import { raceAbort, ShoalError, SingleFlight, type Clock, type Logger } from '../../core/index.ts'
import { isSame, type BucketCredentials, type BucketCredentialSource } from './bucket-credentials.ts'
import type { RequestOptions } from './object-server.ts'

/** The metadata services answer within milliseconds or not at all; a token service may be far away. */
const LOOKUP_MS = 10_000
/** After a refusal the chain is asked afresh at most this often. */
const RENEW_MS = 30_000

/** What the AWS SDK makes: it keeps what it found, and looks again a few minutes before that expires. */
export type CredentialProvider = (options?: { readonly forceRefresh?: boolean }) => Promise<BucketCredentials>

/**
 * The AWS SDK's default chain. Where it finds nothing, that is remembered until a server refuses an unsigned request: to find nothing can
 * take seconds, in which a metadata service that is not there is waited for.
 */
export class ChainCredentials implements BucketCredentialSource {
  readonly #clock: Clock
  readonly #log: Logger
  readonly #provider: CredentialProvider
  readonly #renewals = new SingleFlight<BucketCredentials | undefined>()
  #state: 'unknown' | 'none' | 'found' = 'unknown'
  #renewedAt = -Infinity

  constructor(deps: { readonly clock: Clock; readonly log: Logger; readonly provider: CredentialProvider }) {
    this.#clock = deps.clock
    this.#log = deps.log
    this.#provider = deps.provider
  }

  /** Loads the SDK, and asks nothing of it yet. */
  static async open(deps: { readonly clock: Clock; readonly log: Logger }): Promise<ChainCredentials> {
    const { defaultProvider } = await import('@aws-sdk/credential-provider-node')
    return new ChainCredentials({ ...deps, provider: defaultProvider() })
  }

  async get(options: RequestOptions): Promise<BucketCredentials | undefined> {
    return this.#state === 'none' ? undefined : this.#look({}, options)
  }

  async renew(refused: BucketCredentials | undefined, options: RequestOptions): Promise<BucketCredentials | undefined> {
    const current = await this.get(options)
    if (!isSame(current, refused)) return current
    const renewed = await this.#renewals.run('', signal => this.#lookAgain(signal), options)
    return isSame(renewed, refused) ? undefined : renewed
  }

  async #lookAgain(signal: AbortSignal): Promise<BucketCredentials | undefined> {
    const now = this.#clock.now()
    if (now - this.#renewedAt < RENEW_MS) return undefined
    this.#renewedAt = now
    return this.#look({ forceRefresh: true }, { signal })
  }

  async #look(
    how: { readonly forceRefresh?: boolean },
    { signal }: RequestOptions,
  ): Promise<BucketCredentials | undefined> {
    const deadline = new AbortController()
    const timer = setTimeout(() => deadline.abort(new DOMException('no answer', 'TimeoutError')), LOOKUP_MS)
    try {
      const signals = [deadline.signal, ...(signal === undefined ? [] : [signal])]
      const found = await raceAbort(this.#provider(how), AbortSignal.any(signals))
      this.#state = 'found'
      const { accessKeyId, secretAccessKey, sessionToken } = found
      return { accessKeyId, secretAccessKey, sessionToken }
    } catch (error: unknown) {
      signal?.throwIfAborted()
      // Who had credentials yesterday has not become anonymous because their source is down today.
      if (nameOf(error) !== 'CredentialsProviderError' || this.#state === 'found') throw lookupError(error)
      if (this.#state === 'unknown') this.#log.info({}, 'no credentials found, requests go unsigned')
      this.#state = 'none'
      return undefined
    } finally {
      clearTimeout(timer)
    }
  }
}

/** Only the kind of the failure: messages of the chain quote commands and files. */
function lookupError(error: unknown): ShoalError {
  return new ShoalError('ERR_UPSTREAM_AUTH', `the credentials for the bucket cannot be had (${nameOf(error)})`, {
    details: { status: 403 },
  })
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : 'unknown'
}
