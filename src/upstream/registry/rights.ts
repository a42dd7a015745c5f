import { LRUCache } from 'lru-cache'
import { ShoalError, type Clock } from '../../core/index.ts'
import type { Authorizer, Grant } from '../auth/authorizer.ts'
import { withoutToken } from '../auth/no-token.ts'
import { upTo } from '../up-to.ts'

const MAX_REPOSITORIES = 4096
/** How long a mirror may go on with what the registry granted before the registry is asked again: it may have thought better of it. */
const GRANTED_MS = 5 * 60_000

/** With what right a registry's requests are sent. See Authorizer for each of them. */
export interface Rights extends Pick<Authorizer, 'initial' | 'answer' | 'isRefused' | 'refuse' | 'allow'> {
  /** They are another's: who is asked with them has no say in whether a caller's own credential is good. */
  readonly isLent?: boolean
}

/** A registry's own rights, and which repositories they have opened: for mirrors that are to be asked with no others. */
export class OwnRights implements Rights {
  readonly #own: Rights
  readonly #allowed: LRUCache<string, true>

  constructor(deps: { readonly own: Rights; readonly clock: Clock }) {
    this.#own = deps.own
    this.#allowed = new LRUCache({
      ...upTo(MAX_REPOSITORIES),
      ttl: GRANTED_MS,
      ttlResolution: 0,
      perf: { now: () => deps.clock.now() },
    })
  }

  get isLent(): boolean {
    return this.#own.isLent === true
  }

  initial(repository: string, options: { signal?: AbortSignal | undefined }): Promise<Grant> {
    return this.#own.initial(repository, options)
  }

  answer(
    repository: string,
    wwwAuthenticate: readonly string[],
    sent: Grant,
    options: { signal?: AbortSignal | undefined },
  ): Promise<Grant | undefined> {
    return this.#own.answer(repository, wwwAuthenticate, sent, options)
  }

  isRefused(repository: string): boolean {
    return this.#own.isRefused(repository)
  }

  refuse(repository: string): void {
    this.#allowed.delete(repository)
    this.#own.refuse(repository)
  }

  allow(repository: string): void {
    this.#allowed.set(repository, true)
    this.#own.allow(repository)
  }

  /** Whether the registry has lately given something of this repository for these rights. */
  isAllowed(repository: string): boolean {
    return this.#allowed.has(repository)
  }
}

/**
 * The registry's rights in the hands of a mirror that does not answer challenges itself (auth_through = false): what the registry has
 * granted is shown to it, its refusals are final, and before the registry has granted anything it is not asked at all. The node's own
 * login is the registry's alone; a caller's own credential the mirror gets with requests for bytes that the registry has let this caller
 * read, and with no others: it may well check nothing.
 */
export function lendRights(owner: OwnRights): Rights {
  return {
    isLent: true,
    initial: async (repository, options) => {
      const grant = owner.isAllowed(repository) ? await lent(owner, repository, options) : undefined
      if (grant === undefined)
        throw new ShoalError('ERR_UPSTREAM_AUTH', 'the registry itself has granted nothing for this repository yet')
      if (grant.login !== undefined)
        throw new ShoalError(
          'ERR_UPSTREAM_AUTH',
          'the registry takes a login instead of a token, which is for nobody else',
        )
      return grant
    },
    answer: () => Promise.resolve(undefined),
    isRefused: repository => owner.isRefused(repository),
    refuse: () => undefined,
    allow: () => undefined,
  }
}

/** Whatever is wrong with the registry's token service is not the mirror's failure. */
async function lent(
  owner: OwnRights,
  repository: string,
  options: { signal?: AbortSignal | undefined },
): Promise<Grant> {
  try {
    return await owner.initial(repository, options)
  } catch (error: unknown) {
    options.signal?.throwIfAborted()
    throw withoutToken(error, 'a mirror')
  }
}
