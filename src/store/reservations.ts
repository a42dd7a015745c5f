import type { Admission } from './admission.ts'
import type { StoredBlob } from './stored-blob.ts'

/** The room that one blob's fills have reserved and not yet used. */
export class Reservations {
  readonly #admission: Admission
  readonly #open = new Set<{ rest: number }>()

  constructor(admission: Admission) {
    this.#admission = admission
  }

  reserve(bytes: number): ReturnType<StoredBlob['reserve']> {
    if (!this.#admission.reserve(bytes)) return undefined
    const lease = { rest: bytes }
    this.#open.add(lease)
    return {
      bytes,
      [Symbol.dispose]: () => {
        this.#open.delete(lease)
        this.#admission.giveBack(lease.rest)
        lease.rest = 0
      },
    }
  }

  /**
   * Room for a write, from the oldest reservations first; what they lack is asked for. Which of several fills pays for a block does not
   * matter, the sum does. False: refused. What was taken stays reserved until the caller reports it written or gives it back.
   */
  take(bytes: number): boolean {
    let missing = bytes
    const taken: { lease: { rest: number }; part: number }[] = []
    for (const lease of this.#open) {
      if (missing === 0) break
      const part = Math.min(lease.rest, missing)
      taken.push({ lease, part })
      missing -= part
    }
    if (missing > 0 && !this.#admission.reserve(missing)) return false
    for (const { lease, part } of taken) lease.rest -= part
    return true
  }
}
