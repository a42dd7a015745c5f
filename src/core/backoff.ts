export interface BackoffOptions {
  /** Delay before the first retry, before jitter. */
  readonly baseMs: number
  readonly maxMs: number
}

/** Full jitter: anything between 0 and base * 2^attempt, capped. `attempt` counts from 0; `random` is in [0, 1). */
export function backoffDelay(attempt: number, random: number, { baseMs, maxMs }: BackoffOptions): number {
  return Math.floor(random * Math.min(maxMs, baseMs * 2 ** attempt))
}

/** A Retry-After header in milliseconds from `now` (RFC 9110, 10.2.3: seconds or an HTTP date). Undefined when absent or unreadable. */
export function parseRetryAfter(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined
  if (/^\d{1,9}$/.test(header.trim())) return Number(header.trim()) * 1000
  // Date.parse reads all sorts of things; an HTTP date begins with the name of a day.
  const at = /^[A-Za-z]{3,9},? /.test(header.trim()) ? Date.parse(header) : NaN
  return Number.isNaN(at) ? undefined : Math.max(0, at - now)
}
