import Database from 'better-sqlite3'
import fs from 'node:fs/promises'
import { ShoalError, systemCode, type Clock, type Logger } from '../core/index.ts'
import { FILE_MODE, type Layout } from './layout.ts'
import { SCHEMA, SCHEMA_VERSION } from './schema.ts'

export type Connection = Database.Database

/** `fresh`: the index is new although data files may be there. */
export interface OpenedIndex {
  readonly db: Connection
  readonly fresh: boolean
}

/** Nobody else writes; should somebody, it must not hold the event loop for SQLite's usual five seconds. */
const BUSY_MS = 100

/** Of the write-ahead log's file, once it is empty again. */
const LOG_KEPT_BYTES = 64 * 1024 * 1024

/** What is wrong with an index that is kept aside, as it appears in its new name. */
type Verdict =
  { readonly kind: 'corrupt'; readonly cause: unknown } | { readonly kind: 'newer'; readonly version: number }

/**
 * Opens the index. One that is corrupt or from a newer version is renamed (with its -wal and -shm), said so, and replaced by an empty one.
 * `examine` reads through what the caller will rely on; its SQLite errors count as corruption. Throws ERR_STORE_IO when the disk refuses.
 */
export async function openIndex(
  deps: { log: Logger; clock: Clock },
  layout: Layout,
  examine: (db: Connection) => Promise<void>,
): Promise<OpenedIndex> {
  // SQLite makes its files with the umask's mode; what it makes beside the database copies the database's.
  await (await fs.open(layout.index, 'a', FILE_MODE)).close()
  const suspected = await exists(layout.suspect)
  const opened = await tryOpen(layout, suspected, examine)
  if ('db' in opened) {
    await fs.rm(layout.suspect, { force: true })
    return opened
  }
  const kept = await keepAside(layout, opened, deps.clock)
  const fields =
    opened.kind === 'newer' ? { kept, version: opened.version, ours: SCHEMA_VERSION } : { kept, err: opened.cause }
  deps.log.warn(
    fields,
    `index ${opened.kind === 'newer' ? 'is from a newer version' : 'is corrupt'}, kept aside, starting afresh`,
  )
  await (await fs.open(layout.index, 'a', FILE_MODE)).close()
  await fs.rm(layout.suspect, { force: true })
  const second = await tryOpen(layout, false, examine)
  if ('db' in second) return { db: second.db, fresh: true }
  throw new ShoalError('ERR_STORE_CORRUPT', 'a new index could not be made', { details: { file: layout.index } })
}

/** Whether SQLite says that the file itself is wrong, rather than that the disk refuses. */
export function isCorruption(error: unknown): boolean {
  const code = systemCode(error) ?? ''
  return code.startsWith('SQLITE_CORRUPT') || code === 'SQLITE_NOTADB'
}

async function tryOpen(
  layout: Layout,
  suspected: boolean,
  examine: (db: Connection) => Promise<void>,
): Promise<OpenedIndex | Verdict> {
  let db: Connection | undefined
  try {
    db = new Database(layout.index, { timeout: BUSY_MS })
    const version = db.pragma('user_version', { simple: true }) as number
    if (version > SCHEMA_VERSION) {
      db.close()
      return { kind: 'newer', version }
    }
    const tables = db.prepare('SELECT count(*) FROM sqlite_schema').pluck().get() as number
    const fresh = version === 0 && tables === 0
    if (version === 0 && !fresh) throw new Database.SqliteError('not an index of ours', 'SQLITE_NOTADB')
    db.pragma('journal_mode = WAL')
    db.pragma('synchronous = NORMAL')
    // Checkpoints wait for the disk; they are made on another thread, over a connection of their own.
    db.pragma('wal_autocheckpoint = 0')
    db.pragma(`journal_size_limit = ${LOG_KEPT_BYTES}`)
    if (fresh) db.exec(`BEGIN IMMEDIATE; ${SCHEMA}; PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT`)
    else if (suspected && db.pragma('quick_check(1)', { simple: true }) !== 'ok')
      throw new Database.SqliteError('the full check found damage', 'SQLITE_CORRUPT')
    await examine(db)
    return { db, fresh }
  } catch (error: unknown) {
    db?.close()
    if (isCorruption(error) || isWrongSchema(error)) return { kind: 'corrupt', cause: error }
    throw new ShoalError('ERR_STORE_IO', 'the index could not be opened', {
      cause: error,
      details: { file: layout.index },
    })
  }
}

/** A file that says it is ours and lacks our tables or columns: SQLITE_ERROR when a statement is prepared. */
function isWrongSchema(error: unknown): boolean {
  return systemCode(error) === 'SQLITE_ERROR'
}

async function keepAside(layout: Layout, verdict: Verdict, clock: Clock): Promise<string> {
  const stamp = new Date(clock.now()).toISOString().replace(/[-:.]/g, '')
  const label = verdict.kind === 'newer' ? `version-${verdict.version}` : 'corrupt'
  let kept = `${layout.index}.${label}-${stamp}`
  for (let n = 2; await exists(kept); n += 1) kept = `${layout.index}.${label}-${stamp}-${n}`
  for (const suffix of ['-wal', '-shm', '']) {
    if (await exists(layout.index + suffix)) await fs.rename(layout.index + suffix, kept + suffix)
  }
  return kept
}

async function exists(file: string): Promise<boolean> {
  try {
    await fs.access(file)
    return true
  } catch {
    return false
  }
}
