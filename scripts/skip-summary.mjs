// A reporter for node:test beside `spec`: at the end, every test that was skipped, with its reason, so that nobody takes silence for success.
import path from 'node:path'

/** @param {AsyncIterable<{ type: string, data: { name: string, file?: string, skip?: string | boolean } }>} events */
export default async function* skipSummary(events) {
  const skipped = []
  for await (const { type, data } of events) {
    if ((type !== 'test:pass' && type !== 'test:fail') || data.skip === undefined) continue
    const reason = typeof data.skip === 'string' && data.skip !== '' ? data.skip : 'no reason given'
    skipped.push(`  ${path.basename(data.file ?? '')}: ${data.name}: ${reason}\n`)
  }
  if (skipped.length > 0) yield `skipped (${skipped.length}):\n${skipped.join('')}`
}
