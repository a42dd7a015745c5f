import { MAX_BLOB_BYTES, BLOCK_BYTES, systemCode, type Digest, type Logger } from '../core/index.ts'
import { BlockMap } from './block-map.ts'
import type { DataFiles } from './data-files.ts'
import type { BlobRow, IndexDb } from './index-db.ts'

export interface ScrubDeps {
  readonly index: IndexDb
  readonly files: DataFiles
  readonly log: Logger
}

/** A file may take this much more than its present blocks without a look: block groups, extents, a short write. */
const ALLOCATION_SLACK_BYTES = 4 * BLOCK_BYTES

/**
 * Brings files and rows together after a crash. Looks only at what the last run names: the trash, blobs that were leaving, and blobs
 * whose files were being changed. After a clean close there is nothing. Before anything else uses the store.
 */
export async function scrub({ index, files, log }: ScrubDeps): Promise<void> {
  await tolerating(log, undefined, 'trash could not be emptied', () => files.emptyTrash())
  doomOversized({ index, log })
  const doomed = index.doomed()
  for (const ref of doomed) {
    const isGone =
      index.find(ref.digest) !== undefined ||
      (await tolerating(log, ref.digest, 'data file of a removed blob could not be deleted', () =>
        files.deleteOrphan(ref.digest),
      ))
    // Otherwise it stays doomed, so that the next start tries again.
    while (isGone && !index.purge(ref)) await new Promise(setImmediate)
  }
  const open = index.openBlobs()
  for (const row of open) {
    await tolerating(log, row.digest, 'data file could not be scrubbed', () => settle({ index, files, log }, row))
  }
  index.clearOpen()
  if (doomed.length + open.length > 0) log.info({ doomed: doomed.length, open: open.length }, 'store scrubbed')
}

/** Sizes that nobody refused when they were written: such a blob cannot even be looked at. */
function doomOversized({ index, log }: Pick<ScrubDeps, 'index' | 'log'>): void {
  for (let rows = index.oversized(MAX_BLOB_BYTES); rows.length > 0; rows = index.oversized(MAX_BLOB_BYTES)) {
    for (const row of rows) {
      log.warn({ digest: row.digest, size: row.size, limit: MAX_BLOB_BYTES }, 'blob is larger than any, forgotten')
      index.doom(row)
    }
  }
}

/** The index must work; one file that does not is no reason not to start. False: it did not. */
async function tolerating(
  log: Logger,
  digest: Digest | undefined,
  event: string,
  work: () => Promise<unknown>,
): Promise<boolean> {
  try {
    await work()
    return true
  } catch (err: unknown) {
    if ((systemCode(err) ?? '').startsWith('SQLITE_')) throw err
    log.warn(digest === undefined ? { err } : { err, digest }, event)
    return false
  }
}

/** Rows may be missing for blocks that are on the disk: those go, for they are not counted. A file may be missing for rows. */
async function settle({ index, files, log }: ScrubDeps, row: BlobRow): Promise<void> {
  const map = new BlockMap(row.size, (first, end) => index.chunks(row.id, first, end))
  await map.readyAll()
  let presentBytes = 0
  for (const run of map.present({ first: 0, end: map.blocks })) {
    presentBytes += Math.min(run.end * BLOCK_BYTES, row.size) - run.first * BLOCK_BYTES
  }
  const facts = await files.stat(row)
  if (facts === undefined && presentBytes > 0) {
    log.warn({ digest: row.digest, bytes: presentBytes }, 'data file is missing, blob forgotten')
    index.doom(row)
    while (!index.purge(row)) await new Promise(setImmediate)
    return
  }
  if (facts !== undefined && facts.size > row.size) await files.truncate(row, row.size)
  if (facts !== undefined && facts.allocated > presentBytes + ALLOCATION_SLACK_BYTES) {
    const holes = map.missing({ first: 0, end: map.blocks })
    const spans = holes.map(({ first, end }) => ({
      start: first * BLOCK_BYTES,
      length: Math.min(end * BLOCK_BYTES, row.size) - first * BLOCK_BYTES,
    }))
    await files.punch(row, spans)
  }
  const state = presentBytes === row.size ? row.state : 'partial'
  index.commit([{ id: row.id, state, presentBytes, accessed: row.accessed }], [])
}
