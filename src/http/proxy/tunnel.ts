import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'

/** How long a tunnel is silent before TCP asks whether the other end is still there. */
const KEEP_ALIVE_MS = 60_000
const MAX_LISTENERS = 20

/** Waits as long as it takes: a tunnel may be idle, but not dead. */
export function keepOpen(socket: Duplex): void {
  if (!(socket instanceof Socket)) return
  socket.setTimeout(0)
  socket.setKeepAlive(true, KEEP_ALIVE_MS)
  socket.setNoDelay(true)
}

/**
 * Bytes both ways until both sides have ended. The end of one side is passed on, and the other may go on sending; a failure of either ends
 * both. Rejects with that failure.
 */
export async function join(client: Duplex, upstream: Duplex): Promise<void> {
  for (const socket of [client, upstream]) {
    // A connection may fail once more after it has been given up.
    socket.on('error', () => undefined)
    // Two pipelines listen on each.
    socket.setMaxListeners(MAX_LISTENERS)
    keepOpen(socket)
  }
  try {
    await Promise.all([pipeline(client, upstream), pipeline(upstream, client)])
  } finally {
    client.destroy()
    upstream.destroy()
  }
}
