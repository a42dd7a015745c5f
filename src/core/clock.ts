import { setTimeout as delay } from 'node:timers/promises'

/** Time and chance as collaborators, so that a test can hold both. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number
  /** Resolves after `ms`; rejects with `signal.reason` when aborted. */
  sleep(ms: number, options?: { signal?: AbortSignal }): Promise<void>
  /** In [0, 1). */
  random(): number
}

export const systemClock: Clock = {
  now: () => Date.now(),
  random: () => Math.random(),
  sleep: async (ms, { signal } = {}) => {
    try {
      await delay(ms, undefined, signal === undefined ? {} : { signal })
    } catch (error: unknown) {
      signal?.throwIfAborted()
      throw error
    }
  },
}
