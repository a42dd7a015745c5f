import { LRUCache } from 'lru-cache'
import { ShoalError } from '../../core/index.ts'
import type { Authorizer, Grant } from '../auth/authorizer.ts'

const MAX_REPOSITORIES = 4096

/** With what right a registry's requests are sent. See Authorizer for each of them. */
export type Rights = Pick<Authorizer, 'initial' | 'answer' | 'isRefused' | 'refuse' | 'allow'>

/** A registry's own rights, and which repositories they have opened: for mirrors that are to be asked with no others. */
export class OwnRights implements Rights {
  readonly #own: Rights
  readonly #allowed = new LRUCache<string, true>({ max: MAX_REPOSITORIES })

  constructor(own: Rights) {
    this.#own = own
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

  /** Whether the registry has answered for this repository with these rights. */
  isAllowed(repository: string): boolean {
    return this.#allowed.has(repository)
  }
}

/**
 * The registry's rights in the hands of a mirror that does not answer challenges itself (auth_through = false): what the registry has
 * granted is shown to it, its refusals are final, and before the registry has granted anything it is not asked at all. The node's own
 * login is the registry's alone.
 */
export function lendRights(owner: OwnRights): Rights {
  return {
    initial: async (repository, options) => {
      const grant = owner.isAllowed(repository) ? await owner.initial(repository, options) : undefined
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
