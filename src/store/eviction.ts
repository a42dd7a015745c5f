/** A blob that might go. */
export interface Candidate {
  readonly presentBytes: number
  /** Smaller is longer ago. Unique. */
  readonly accessed: number
  /** Being read or filled, or mounted. */
  readonly held: boolean
  readonly pinned: boolean
}

/** `bytes` below `candidate.presentBytes`: only that much of it, its coldest chunks. */
export interface Victim<C extends Candidate> {
  readonly candidate: C
  readonly bytes: number
}

/**
 * Who goes so that `bytes` are freed: whole blobs, least recently used first; if they do not suffice, blobs that alone are more than half
 * of `limit`, chunk by chunk. Held and pinned ones never. Frees at least `bytes`, or everything that may go. Empty
 * ones go along when their turn comes.
 */
export function pickVictims<C extends Candidate>(candidates: readonly C[], bytes: number, limit: number): Victim<C>[] {
  const free = candidates.filter(({ held, pinned }) => !held && !pinned)
  const ordered = free.toSorted((a, b) => a.accessed - b.accessed)
  const isLarge = (candidate: C): boolean => candidate.presentBytes > limit / 2
  const victims: Victim<C>[] = []
  let rest = bytes
  for (const candidate of ordered) {
    if (rest <= 0) return victims
    if (isLarge(candidate)) continue
    victims.push({ candidate, bytes: candidate.presentBytes })
    rest -= candidate.presentBytes
  }
  for (const candidate of ordered) {
    if (rest <= 0) return victims
    if (!isLarge(candidate)) continue
    const part = Math.min(rest, candidate.presentBytes)
    victims.push({ candidate, bytes: part })
    rest -= part
  }
  return victims
}

export interface ChunkUse {
  readonly index: number
  readonly presentBytes: number
  /** Larger is more recent; 0: not in this run. */
  readonly lastUse: number
}

/** The coldest chunks that together hold at least `bytes`, or all of them. Among equals the later ones go first: images start at the front. */
export function pickColdChunks(chunks: readonly ChunkUse[], bytes: number): ChunkUse[] {
  const ordered = chunks
    .filter(({ presentBytes }) => presentBytes > 0)
    .toSorted((a, b) => a.lastUse - b.lastUse || b.index - a.index)
  const picked: ChunkUse[] = []
  let rest = bytes
  for (const chunk of ordered) {
    if (rest <= 0) break
    picked.push(chunk)
    rest -= chunk.presentBytes
  }
  return picked
}
