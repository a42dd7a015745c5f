import { createHmac, randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { BlobKey, Clock, Visibility } from '../core/index.ts'
import type { Place, Places } from '../store/index.ts'
import { tokenExpiry } from './token-expiry.ts'
import type { ReadPolicy, Sources } from './sources.ts'

/** A proof of public or shared access is believed for this long. */
const PROOF_MS = 60 * 60 * 1000
/** A caller's credential that the origin accepted for a repository is believed for this long, or until it says that it expires. */
const VERDICT_MS = 5 * 60 * 1000
/** When the origin cannot be asked, an expired proof is believed for this long before it is asked again. */
const EXTENSION_MS = 30 * 1000
const MAX_VERDICTS = 10_000

/** allowed: serve. expired: it was allowed to everyone until lately; serve only if the origin cannot be asked. unknown: ask the origin. */
export type AccessAnswer = 'allowed' | 'expired' | 'unknown'

/**
 * Who may read what is in the cache. A blob is readable for those who could have pulled it from the place they name: the same digest in
 * another repository proves nothing. Callers' credentials are remembered only as an HMAC under a key that dies with the process.
 */
export class Access {
  readonly #places: Places
  readonly #sources: Pick<Sources, 'policy'>
  readonly #clock: Clock
  readonly #secret = randomBytes(32)
  readonly #verdicts = new LRUCache<string, number>({ max: MAX_VERDICTS })

  constructor(deps: { places: Places; sources: Pick<Sources, 'policy'>; clock: Clock }) {
    this.#places = deps.places
    this.#sources = deps.sources
    this.#clock = deps.clock
  }

  check(key: BlobKey, authorization: string | undefined): AccessAnswer {
    const place = this.#places.where(key.registry, key.repository, key.digest)
    if (place === undefined || !isBelieved(place, this.#sources.policy(key.registry))) return 'unknown'
    const now = this.#clock.now()
    if (place.visibility !== 'private') return place.until > now ? 'allowed' : 'expired'
    if (authorization === undefined) return 'unknown'
    const until = this.#verdicts.get(this.#verdictKey(key, authorization))
    return until !== undefined && until > now ? 'allowed' : 'unknown'
  }

  /** The origin has just let this caller read `key`. */
  allow(key: BlobKey, visibility: Visibility, authorization: string | undefined): void {
    const now = this.#clock.now()
    this.#places.put(key.registry, key.repository, key.digest, { visibility, until: now + PROOF_MS })
    if (visibility === 'private' && authorization !== undefined) {
      const until = Math.min(now + VERDICT_MS, tokenExpiry(authorization) ?? Infinity)
      this.#verdicts.set(this.#verdictKey(key, authorization), until)
    }
  }

  /** The origin could not be asked: everyone's access of lately goes on for a while, so that not every request waits for the origin. */
  extend(key: BlobKey): void {
    const place = this.#places.where(key.registry, key.repository, key.digest)
    if (place === undefined || place.visibility === 'private') return
    const until = this.#clock.now() + EXTENSION_MS
    this.#places.put(key.registry, key.repository, key.digest, { visibility: place.visibility, until })
  }

  /**
   * The origin says that `key` is not there, or not for this caller. What everyone was allowed, nobody is any longer; what single callers
   * were allowed, this one is no longer.
   */
  forget(key: BlobKey, authorization: string | undefined): void {
    const place = this.#places.where(key.registry, key.repository, key.digest)
    if (place?.visibility !== 'private') this.#places.remove(key.registry, key.repository, key.digest)
    else if (authorization !== undefined) this.#verdicts.delete(this.#verdictKey(key, authorization))
  }

  /** Whether it takes a caller's own credential to read `key`. */
  isPrivate(key: BlobKey): boolean {
    return this.#places.where(key.registry, key.repository, key.digest)?.visibility === 'private'
  }

  #verdictKey(key: BlobKey, authorization: string): string {
    return createHmac('sha256', this.#secret)
      .update(`${key.registry}\0${key.repository}\0${authorization}`)
      .digest('base64')
  }
}

/** Proofs outlive the process and the configuration that they were made under; one that today's would not have made counts for nothing. */
function isBelieved({ visibility }: Place, policy: ReadPolicy | undefined): boolean {
  if (policy === 'shared') return visibility !== 'private'
  return policy === 'auto' || policy === visibility
}
