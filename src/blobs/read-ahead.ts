import { BLOCK_BYTES, type ByteRange } from '../core/index.ts'

/** Read-ahead doubles up to this many bytes. */
export const MAX_READ_AHEAD_BYTES = 8 * 1024 * 1024

/** Sequential readers of one blob that are told apart at the same time; the least recent one is forgotten first. */
const TRACKED_READERS = 8

/**
 * How far behind the end of the last range the next may begin and still count as sequential; ranges that were read ahead come on top,
 * because those are hits, which nobody reports here.
 */
const SLACK_BYTES = BLOCK_BYTES

interface Track {
  end: number
  ahead: number
}

/**
 * Recognises readers that ask for one range after the other. observe() tells how many bytes beyond a range are worth fetching: none for
 * a first or random range, then the length of the range, doubling with every further one.
 */
export class ReadAhead {
  readonly #tracks: Track[] = []

  observe(range: ByteRange): number {
    const index = this.#tracks.findIndex(
      track => range.start >= track.end && range.start - track.end <= SLACK_BYTES + track.ahead,
    )
    const [previous] = index === -1 ? [] : this.#tracks.splice(index, 1)
    const ahead =
      previous === undefined ? 0 : Math.min(MAX_READ_AHEAD_BYTES, Math.max(previous.ahead * 2, range.end - range.start))
    this.#tracks.unshift({ end: range.end, ahead })
    if (this.#tracks.length > TRACKED_READERS) this.#tracks.pop()
    return ahead
  }
}
