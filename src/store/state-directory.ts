import { randomUUID } from 'node:crypto'
import fs from 'node:fs/promises'
import path from 'node:path'
import { Scope, ShoalError, systemCode } from '../core/index.ts'
import { DiskFiles, type DataFiles } from './data-files.ts'
import { isCorruption } from './index-open.ts'
import { IndexDb, type IndexDeps } from './index-db.ts'
import { DIRECTORY_MODE, FILE_MODE, layoutOf, type Layout } from './layout.ts'
import { StateLock } from './lock.ts'
import { openNative } from './native.ts'
import { scrub } from './scrub.ts'

/** Wraps the data files, so that a test can make them fail. */
export type WrapFiles = (files: DataFiles) => DataFiles

/** A locked, scrubbed state directory. */
export interface StateDirectory {
  readonly layout: Layout
  /** Names this node for as long as the directory lives. */
  readonly id: string
  readonly index: IndexDb
  readonly files: DataFiles
  readonly blobs: number
  readonly presentBytes: number
  /** Closes it all, the lock last. */
  readonly scope: Scope
}

/**
 * Throws ERR_STORE_LOCKED when another process has the directory, ERR_STORE_IO when the disk refuses. A corrupt or newer index is kept
 * aside, and its data files are left for the sweep.
 */
export async function openStateDirectory(
  deps: IndexDeps & { wrapFiles: WrapFiles },
  options: { path: string },
): Promise<StateDirectory> {
  const layout = layoutOf(path.resolve(options.path))
  const scope = new Scope()
  try {
    await fs.mkdir(layout.root, { recursive: true, mode: DIRECTORY_MODE })
    const native = openNative()
    scope.use(await StateLock.open({ native }, { file: layout.lock }))
    for (const directory of [layout.blobs, layout.trash]) {
      await fs.mkdir(directory, { recursive: true, mode: DIRECTORY_MODE })
    }
    const id = await nodeId(layout)
    const files = deps.wrapFiles(new DiskFiles({ native, log: deps.log }, { layout }))
    scope.defer(() => files.close())
    const { index, blobs, presentBytes } = await openScrubbed(deps, layout, files)
    scope.use(index)
    return { layout, id, index, files, blobs, presentBytes, scope }
  } catch (error: unknown) {
    await scope.close()
    throw toStoreError(error, layout.root)
  }
}

/** What the disk or SQLite refused while opening, as ERR_STORE_IO; anything else as it is. */
export function toStoreError(error: unknown, directory: string): unknown {
  if (error instanceof ShoalError || systemCode(error) === undefined) return error
  return new ShoalError('ERR_STORE_IO', 'the state directory could not be opened', {
    cause: error,
    details: { path: directory },
  })
}

interface Scrubbed {
  readonly index: IndexDb
  readonly blobs: number
  readonly presentBytes: number
}

/** Damage that only the scrub runs into is treated like damage found at once: with the mark, the second opening looks at everything. */
async function openScrubbed(deps: IndexDeps, layout: Layout, files: DataFiles): Promise<Scrubbed> {
  const first = await IndexDb.open(deps, layout)
  try {
    return await scrubbed(first, deps, files)
  } catch (error: unknown) {
    first[Symbol.dispose]()
    if (!isCorruption(error)) throw error
  }
  await fs.writeFile(layout.suspect, '', { mode: FILE_MODE })
  const second = await IndexDb.open(deps, layout)
  try {
    return await scrubbed(second, deps, files)
  } catch (error: unknown) {
    second[Symbol.dispose]()
    throw error
  }
}

async function scrubbed(index: IndexDb, deps: IndexDeps, files: DataFiles): Promise<Scrubbed> {
  if (index.fresh) index.setMeta('sweep', 1)
  await scrub({ index, files, log: deps.log })
  let [blobs, presentBytes] = [0, 0]
  for await (const rows of index.blobs()) {
    blobs += rows.length
    for (const row of rows) presentBytes += row.presentBytes
  }
  return { index, blobs, presentBytes }
}

async function nodeId(layout: Layout): Promise<string> {
  const kept = await readIfThere(layout.id)
  if (/^[0-9a-f-]{36}$/.test(kept)) return kept
  const id = randomUUID()
  // Renamed into place: half an id would be another one at the next start.
  await fs.writeFile(`${layout.id}.new`, `${id}\n`, { mode: FILE_MODE, flush: true })
  await fs.rename(`${layout.id}.new`, layout.id)
  return id
}

async function readIfThere(file: string): Promise<string> {
  try {
    return (await fs.readFile(file, 'latin1')).trim()
  } catch (error: unknown) {
    if (systemCode(error) === 'ENOENT') return ''
    throw error
  }
}
