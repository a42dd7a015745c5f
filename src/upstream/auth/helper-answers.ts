import { LRUCache } from 'lru-cache'
import { SingleFlight, type Clock, type Logger } from '../../core/index.ts'
import { isSameCredential, type Credential } from './credential.ts'

const MAX_ANSWERS = 4096
/** After a failure, and after an answer that was refused before: a helper that hangs must not cost every request its ten seconds. */
const FAILURE_MS = 30_000
/** A refused answer that is younger than this is not asked for again. */
const SETTLED_MS = 1_000
const WARN_MS = 60_000

/** What a helper came back with. `key`: what the answer is good for. */
export type HelperOutcome<T> =
  | { readonly kind: 'answered'; readonly key: string; readonly value: T; readonly keepMs: number }
  | { readonly kind: 'failed'; readonly why: string }

export interface HelperQuestion<T> {
  /** Where an answer may have been kept; the first that is there counts. */
  readonly keys: readonly string[]
  /** Where a failure is kept; one of `keys`. Questions with the same are asked one after the other: an answer may do for them all. */
  readonly failureKey: string
  /** For the log. */
  readonly registry: string
  readonly ask: () => Promise<HelperOutcome<T>>
  readonly credentialOf: (value: T) => Credential | undefined
}

interface Kept<T> {
  /** Undefined: it failed. */
  readonly value: T | undefined
  readonly since: number
  readonly until: number
}

/**
 * The answers of one helper. The same question is asked once at a time, and its answer kept for as long as it says. A helper that fails is
 * left alone for a while, in which the last answer that it gave still holds, unless that has been refused.
 */
export class HelperAnswers<T> {
  readonly #clock: Clock
  readonly #log: Logger
  /** For the log. */
  readonly #helper: string
  readonly #kept = new LRUCache<string, Kept<T>>({ max: MAX_ANSWERS })
  readonly #flights = new SingleFlight<{ readonly asked: string | undefined; readonly value: T | undefined }>()
  #warnedAt = -Infinity

  constructor(deps: { readonly clock: Clock; readonly log: Logger }, options: { readonly helper: string }) {
    this.#clock = deps.clock
    this.#log = deps.log
    this.#helper = options.helper
  }

  /** Undefined: the helper failed. Throws what `ask` throws. */
  async get(question: HelperQuestion<T>, refused: Credential | undefined): Promise<T | undefined> {
    const { failureKey, keys } = question
    for (;;) {
      const kept = this.#find(keys)
      if (kept !== undefined && !this.#isOutdated(kept, question, refused)) return kept.value
      const { asked, value } = await this.#flights.run(failureKey, async () => ({
        asked: keys[0],
        value: await this.#ask(question, refused),
      }))
      if (asked === keys[0]) return value
    }
  }

  #find(keys: readonly string[]): Kept<T> | undefined {
    const now = this.#clock.now()
    return keys.map(key => this.#kept.get(key)).find(kept => kept !== undefined && kept.until > now)
  }

  #isOutdated({ since, value }: Kept<T>, question: HelperQuestion<T>, refused: Credential | undefined): boolean {
    const isSettled = since + SETTLED_MS > this.#clock.now()
    return !isSettled && value !== undefined && isRefused(value, question, refused)
  }

  async #ask(question: HelperQuestion<T>, refused: Credential | undefined): Promise<T | undefined> {
    const { failureKey, keys } = question
    const outcome = await question.ask()
    const since = this.#clock.now()
    if (outcome.kind === 'answered') {
      const { keepMs, key, value } = outcome
      const until = since + (isRefused(value, question, refused) ? Math.min(keepMs, FAILURE_MS) : keepMs)
      for (const old of keys) this.#kept.delete(old)
      this.#kept.set(key, { value, since, until })
      return value
    }
    this.#warn(question.registry, outcome.why)
    const lastKey = keys.find(key => this.#kept.get(key)?.value !== undefined) ?? failureKey
    const last = this.#kept.get(lastKey)?.value
    const value = last === undefined || isRefused(last, question, refused) ? undefined : last
    this.#kept.set(lastKey, { value, since, until: since + FAILURE_MS })
    return value
  }

  /** One line a minute: whoever configured the helper is to learn of it, not everybody who reads the log. */
  #warn(registry: string, cause: string): void {
    const now = this.#clock.now()
    if (now - this.#warnedAt < WARN_MS) return
    this.#warnedAt = now
    this.#log.warn({ helper: this.#helper, registry, cause }, 'credential helper failed')
  }
}

function isRefused<T>(value: T, { credentialOf }: HelperQuestion<T>, refused: Credential | undefined): boolean {
  return refused !== undefined && isSameCredential(credentialOf(value), refused)
}
