import { ShoalError, type ListingAnswer } from '../../core/index.ts'

/** What a mirror did wrong. `body`: other bytes than asked for, or fewer. */
export type FailureKind = 'timeout' | 'transport' | 'status' | 'body'

/** What counts against a mirror: a request that failed, or a ping of one that had failed before. */
export type MirrorFailureKind = FailureKind | 'ping'

/** How the head of a mirror's answer ended. `refused`: 4xx other than 404; `failed`: no head, or one that counts as a failure. */
export type MirrorRequestOutcome = 'success' | 'absent' | 'refused' | 'failed' | 'aborted'

/**
 * What `error` says against the host that was asked. Undefined: nothing, as with what it does not have (404), does not allow (401, 403), has
 * no time for (429) or was asked wrongly (4xx).
 */
export function failureKind(error: unknown): FailureKind | undefined {
  if (!(error instanceof ShoalError)) return undefined
  switch (error.code) {
    case 'ERR_UPSTREAM_TIMEOUT':
      return 'timeout'
    case 'ERR_UPSTREAM_TRANSPORT':
      return 'transport'
    case 'ERR_UPSTREAM_STATUS':
      return Number(error.details['status']) >= 500 ? 'status' : undefined
    case 'ERR_UPSTREAM_BODY':
    case 'ERR_DIGEST_MISMATCH':
      return 'body'
    default:
      return undefined
  }
}

export function outcomeOfAnswer(answer: unknown): MirrorRequestOutcome {
  return answer === undefined ? 'absent' : 'success'
}

/** Any status may come with a listing. 501 is a server that does not know the listing, and no failure. */
export function outcomeOfListing({ status }: ListingAnswer): MirrorRequestOutcome {
  if (status === 404) return 'absent'
  return status < 400 ? 'success' : 'refused'
}

export function outcomeOfError(error: unknown): MirrorRequestOutcome {
  return failureKind(error) === undefined ? 'refused' : 'failed'
}
