import { setTimeout as delay } from 'node:timers/promises'
import { startShoal } from '../test/support/processes.ts'
import { usageOf } from './process-usage.ts'

/** By then whatever a start leaves to be collected has been. */
const SETTLE_MS = 5000

/** Memory of a daemon with the embedded defaults and an empty state that nobody has asked anything. */
export async function measureIdle(options: { signal: AbortSignal }): Promise<{ readonly rssBytes: number }> {
  await using shoal = await startShoal()
  await delay(SETTLE_MS, undefined, { signal: options.signal })
  const { rssBytes } = await usageOf(shoal.pid)
  return { rssBytes }
}
