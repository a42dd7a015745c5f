import type { ServerResponse } from 'node:http'
import type { Piece } from './pieces.ts'

/** Bytes that may be on their way to one client before its source is made to wait. */
const MAX_OUTSTANDING_BYTES = 1024 * 1024

/**
 * Writes a body at the client's pace and ends the answer. Node's own high-water mark is smaller than one piece; this lets a few pieces
 * overlap, counted in bytes, so that reading the next one and sending this one happen at the same time. `pieces` is left early when the
 * client goes. Rejects with the failure of `pieces`; the answer is then not ended.
 */
export async function writeBody(response: ServerResponse, pieces: AsyncIterable<Piece>): Promise<void> {
  const isGone = (): boolean => response.destroyed
  let outstanding = 0
  let wake: (() => void) | undefined
  response.once('close', () => wake?.())
  for await (const { bytes, release } of pieces) {
    if (isGone()) return
    outstanding += bytes.length
    response.write(bytes, () => {
      outstanding -= bytes.length
      release?.()
      wake?.()
    })
    while (outstanding >= MAX_OUTSTANDING_BYTES && !isGone()) {
      await new Promise<void>(resolve => (wake = resolve))
    }
  }
  if (!isGone()) response.end()
}
