import type { Statement } from 'better-sqlite3'
import type { Clock, Digest, Logger, Visibility } from '../core/index.ts'
import type { ChunkRow } from './block-map.ts'
import { openIndex, type Connection } from './index-open.ts'
import type { FileRef, Layout } from './layout.ts'

export interface IndexDeps {
  readonly log: Logger
  readonly clock: Clock
  /** At most so many pages went to the write-ahead log. */
  readonly onWrite: (pages: number) => void
}

export interface BlobRow extends FileRef {
  readonly size: number
  readonly mediaType: string | undefined
  readonly state: 'partial' | 'complete'
  readonly presentBytes: number
  /** Milliseconds since 1970. */
  readonly created: number
  /** Microseconds since 1970, unique. */
  readonly accessed: number
  readonly pinned: boolean
}

export interface NewBlob {
  readonly digest: Digest
  readonly size: number
  readonly mediaType: string | undefined
  readonly state: 'partial' | 'complete'
  readonly created: number
  readonly accessed: number
}

/** What changes in a blob's row as it is used and filled. */
export interface BlobUpdate {
  readonly id: number
  readonly state: 'partial' | 'complete'
  readonly presentBytes: number
  readonly accessed: number
}

export interface ChunkUpdate {
  readonly blobId: number
  readonly row: ChunkRow
}

export interface PlaceRow {
  readonly registry: string
  readonly repository: string
  readonly digest: Digest
  readonly visibility: Visibility
  readonly until: number
  readonly size: number | null
}

export interface ManifestRow {
  readonly registry: string
  readonly repository: string
  readonly reference: string
  readonly digest: Digest
  readonly media_type: string
  readonly size: number
  readonly etag: string | null
  readonly checked_at: number
}

/** A row that is written with the next batch. */
export type LateRow =
  { readonly kind: 'place'; readonly row: PlaceRow } | { readonly kind: 'manifest'; readonly row: ManifestRow }

interface RawBlob {
  readonly id: number
  readonly digest: string
  readonly size: number
  readonly media_type: string | null
  readonly state: 'partial' | 'complete'
  readonly present_bytes: number
  readonly created: number
  readonly accessed: number
  readonly pinned: number
}

/** Rows of any table that one statement may touch; keeps each well under a millisecond. */
export const PAGE_ROWS = 256

/**
 * Pages that a change of one row touches at most: one in its table and one in each index, two where an indexed column changes, and one
 * for the page that is split now and then.
 */
const BLOB_PAGES = 5
const CHUNK_PAGES = 1
const LATE_PAGES = 4
const SMALL_PAGES = 1

const BLOB_COLUMNS = 'id, digest, size, media_type, state, present_bytes, created, accessed, pinned'

/**
 * Every statement that the store runs, prepared once. Synchronous, short, and the only writer. SQLite's errors come out as they are; who
 * calls decides what they mean.
 */
export class IndexDb implements Disposable {
  /** The database was made just now, although data files may be there. */
  readonly fresh: boolean
  readonly #db: Connection
  readonly #sql: Statements
  readonly #transact: (work: () => void) => void
  readonly #onWrite: (pages: number) => void

  private constructor(db: Connection, fresh: boolean, onWrite: (pages: number) => void) {
    this.#db = db
    this.fresh = fresh
    this.#onWrite = onWrite
    this.#sql = prepare(db)
    this.#transact = db.transaction((work: () => void) => work())
  }

  /** See openIndex(). Reads the blob table through once, in pages. */
  static async open(deps: IndexDeps, layout: Layout): Promise<IndexDb> {
    const { db, fresh } = await openIndex(deps, layout, async candidate => {
      await new IndexDb(candidate, false, () => undefined).readThrough()
    })
    return new IndexDb(db, fresh, deps.onWrite)
  }

  /** Reads the blob table once, to hear of damage. */
  async readThrough(): Promise<void> {
    const pages = this.blobs()
    while ((await pages.next()).done !== true);
  }

  find(digest: Digest): BlobRow | undefined {
    const raw = this.#sql.blobByDigest.get(digest)
    return raw === undefined ? undefined : toBlobRow(raw)
  }

  /** Makes a row that counts as open, dooming an older one of the same digest. Returns its id. */
  create(blob: NewBlob): number {
    let id = 0
    this.#transact(() => {
      const old = this.#sql.blobByDigest.get(blob.digest)
      if (old !== undefined) this.#doom(old.id, blob.digest)
      const { digest, size, mediaType, state, created, accessed } = blob
      id = Number(this.#sql.insertBlob.run(digest, size, mediaType ?? null, state, created, accessed).lastInsertRowid)
      if (state === 'partial') this.#sql.insertOpen.run(id)
    })
    this.#onWrite(BLOB_PAGES + SMALL_PAGES)
    return id
  }

  /** Takes the blob out of the index; its chunk rows stay until purge(). */
  doom(ref: FileRef): void {
    this.#transact(() => this.#doom(ref.id, ref.digest))
    this.#onWrite(BLOB_PAGES + 2 * SMALL_PAGES)
  }

  #doom(id: number, digest: Digest): void {
    this.#sql.deleteBlob.run(id)
    this.#sql.deleteOpen.run(id)
    this.#sql.insertDoomed.run(id, digest)
  }

  /** Deletes a page of what is left of a doomed blob. True: nothing is left, and nothing remembers it. */
  purge(ref: FileRef): boolean {
    const { changes } = this.#sql.deleteChunks.run(ref.id, ref.id, PAGE_ROWS)
    this.#onWrite(changes * CHUNK_PAGES + 2 * LATE_PAGES)
    if (changes === PAGE_ROWS) return false
    this.#transact(() => {
      this.#sql.deletePlaces.run(ref.digest, ref.digest)
      this.#sql.deleteManifests.run(ref.digest, ref.digest)
      this.#sql.deleteDoomed.run(ref.id)
    })
    return true
  }

  doomed(): FileRef[] {
    return this.#sql.doomed.all().map(({ blob_id, digest }) => ({ id: blob_id, digest: digest as Digest }))
  }

  /** One transaction. A chunk without blocks loses its row. */
  commit(blobs: readonly BlobUpdate[], chunks: readonly ChunkUpdate[], late: readonly LateRow[] = []): void {
    this.#transact(() => {
      for (const { blobId, row } of chunks) {
        if (row.mask === 0) this.#sql.deleteChunk.run(blobId, row.index)
        else this.#sql.putChunk.run(blobId, row.index, row.mask, row.crcs, row.sources)
      }
      for (const { id, state, presentBytes, accessed } of blobs) {
        this.#sql.updateBlob.run(state, presentBytes, accessed, id)
        if (state === 'complete') this.#sql.deleteOpen.run(id)
      }
      for (const { kind, row } of late) {
        if (kind === 'place') this.#sql.putPlace.run(row)
        else this.#sql.putManifest.run(row)
      }
    })
    this.#onWrite(blobs.length * BLOB_PAGES + chunks.length * CHUNK_PAGES + late.length * LATE_PAGES)
  }

  chunks(blobId: number, first: number, end: number): ChunkRow[] {
    return this.#sql.chunks.all(blobId, first, end).map(({ idx, ...row }) => ({ index: idx, ...row }))
  }

  /** Blobs by id, a page per turn of the event loop. Ends when the index is closed. */
  async *blobs(): AsyncGenerator<BlobRow[]> {
    for (let after = 0; this.#db.open;) {
      const rows = this.#sql.blobsById.all(after, PAGE_ROWS).map(toBlobRow)
      const last = rows.at(-1)
      if (last === undefined) return
      after = last.id
      yield rows
      await new Promise(resolve => setImmediate(resolve))
    }
  }

  /** Unpinned blobs, least recently used first, a page per turn of the event loop. */
  async *coldest(): AsyncGenerator<BlobRow[]> {
    for (let [accessed, id] = [-1, 0]; this.#db.open;) {
      const rows = this.#sql.blobsByAccess.all(accessed, id, PAGE_ROWS).map(toBlobRow)
      const last = rows.at(-1)
      if (last === undefined) return
      accessed = last.accessed
      id = last.id
      yield rows
      await new Promise(resolve => setImmediate(resolve))
    }
  }

  /** False: unknown. */
  pin(digest: Digest, pinned: boolean): boolean {
    this.#onWrite(SMALL_PAGES)
    return this.#sql.pinBlob.run(pinned ? 1 : 0, digest).changes > 0
  }

  setMediaType(id: number, mediaType: string): void {
    this.#onWrite(SMALL_PAGES)
    this.#sql.setMediaType.run(mediaType, id)
  }

  markOpen(id: number): void {
    this.#onWrite(SMALL_PAGES)
    this.#sql.insertOpen.run(id)
  }

  /** Some of the blobs with more bytes than `limit`; none: there are none. Looks at every row. */
  oversized(limit: number): BlobRow[] {
    return this.#sql.oversized.all(limit, PAGE_ROWS).map(toBlobRow)
  }

  openBlobs(): BlobRow[] {
    return this.#sql.openBlobs.all().map(toBlobRow)
  }

  clearOpen(): void {
    this.#sql.clearOpen.run()
  }

  sources(): { id: number; name: string }[] {
    return this.#sql.sources.all()
  }

  addSource(id: number, name: string): void {
    this.#sql.insertSource.run(id, name)
  }

  meta(key: string): number | undefined {
    return this.#sql.meta.get(key)?.value
  }

  setMeta(key: string, value: number): void {
    this.#sql.setMeta.run(key, value)
  }

  place(registry: string, repository: string, digest: Digest): PlaceRow | undefined {
    return this.#sql.place.get(registry, repository, digest)
  }

  removePlace(registry: string, repository: string, digest: Digest): boolean {
    this.#onWrite(LATE_PAGES)
    return this.#sql.removePlace.run(registry, repository, digest).changes > 0
  }

  manifest(registry: string, repository: string, reference: string): ManifestRow | undefined {
    return this.#sql.manifest.get(registry, repository, reference)
  }

  removeManifest(registry: string, repository: string, reference: string): boolean {
    this.#onWrite(LATE_PAGES)
    return this.#sql.removeManifest.run(registry, repository, reference).changes > 0
  }

  [Symbol.dispose](): void {
    this.#db.close()
  }
}

interface RawChunk {
  readonly idx: number
  readonly mask: number
  readonly crcs: Uint8Array
  readonly sources: Uint8Array
}

type Statements = ReturnType<typeof prepare>

function prepare(db: Connection) {
  const sql = <Bind extends unknown[], Row = unknown>(source: string): Statement<Bind, Row> =>
    db.prepare<Bind, Row>(source)
  return {
    blobByDigest: sql<[string], RawBlob>(`SELECT ${BLOB_COLUMNS} FROM blob WHERE digest = ?`),
    blobsById: sql<[number, number], RawBlob>(`SELECT ${BLOB_COLUMNS} FROM blob WHERE id > ? ORDER BY id LIMIT ?`),
    blobsByAccess: sql<[number, number, number], RawBlob>(
      `SELECT ${BLOB_COLUMNS} FROM blob WHERE (accessed, id) > (?, ?) AND pinned = 0 ORDER BY accessed, id LIMIT ?`,
    ),
    oversized: sql<[number, number], RawBlob>(`SELECT ${BLOB_COLUMNS} FROM blob WHERE size > ? LIMIT ?`),
    insertBlob: sql<[string, number, string | null, string, number, number]>(
      'INSERT INTO blob (digest, size, media_type, state, created, accessed) VALUES (?, ?, ?, ?, ?, ?)',
    ),
    updateBlob: sql<[string, number, number, number]>(
      'UPDATE blob SET state = ?, present_bytes = ?, accessed = ? WHERE id = ?',
    ),
    pinBlob: sql<[number, string]>('UPDATE blob SET pinned = ? WHERE digest = ?'),
    setMediaType: sql<[string, number]>('UPDATE blob SET media_type = ? WHERE id = ?'),
    deleteBlob: sql<[number]>('DELETE FROM blob WHERE id = ?'),
    chunks: sql<[number, number, number], RawChunk>(
      'SELECT idx, mask, crcs, sources FROM chunk WHERE blob_id = ? AND idx >= ? AND idx < ?',
    ),
    putChunk: sql<[number, number, number, Uint8Array, Uint8Array]>(
      'INSERT INTO chunk (blob_id, idx, mask, crcs, sources) VALUES (?, ?, ?, ?, ?) ' +
        'ON CONFLICT DO UPDATE SET mask = excluded.mask, crcs = excluded.crcs, sources = excluded.sources',
    ),
    deleteChunk: sql<[number, number]>('DELETE FROM chunk WHERE blob_id = ? AND idx = ?'),
    deleteChunks: sql<[number, number, number]>(
      'DELETE FROM chunk WHERE blob_id = ? AND idx IN (SELECT idx FROM chunk WHERE blob_id = ? LIMIT ?)',
    ),
    insertOpen: sql<[number]>('INSERT OR IGNORE INTO open_blob (blob_id) VALUES (?)'),
    deleteOpen: sql<[number]>('DELETE FROM open_blob WHERE blob_id = ?'),
    clearOpen: sql<[]>('DELETE FROM open_blob'),
    openBlobs: sql<[], RawBlob>(`SELECT ${BLOB_COLUMNS} FROM blob WHERE id IN (SELECT blob_id FROM open_blob)`),
    insertDoomed: sql<[number, string]>('INSERT OR IGNORE INTO doomed (blob_id, digest) VALUES (?, ?)'),
    deleteDoomed: sql<[number]>('DELETE FROM doomed WHERE blob_id = ?'),
    doomed: sql<[], { blob_id: number; digest: string }>('SELECT blob_id, digest FROM doomed'),
    sources: sql<[], { id: number; name: string }>('SELECT id, name FROM source'),
    insertSource: sql<[number, string]>('INSERT INTO source (id, name) VALUES (?, ?)'),
    meta: sql<[string], { value: number }>('SELECT value FROM meta WHERE key = ?'),
    setMeta: sql<[string, number]>('INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)'),
    place: sql<[string, string, string], PlaceRow>(
      'SELECT * FROM place WHERE registry = ? AND repository = ? AND digest = ?',
    ),
    putPlace: sql<[PlaceRow]>(
      'INSERT OR REPLACE INTO place VALUES (@registry, @repository, @digest, @visibility, @until, @size)',
    ),
    removePlace: sql<[string, string, string]>(
      'DELETE FROM place WHERE registry = ? AND repository = ? AND digest = ?',
    ),
    deletePlaces: sql<[string, string]>(
      'DELETE FROM place WHERE digest = ? AND NOT EXISTS (SELECT 1 FROM blob WHERE digest = ?)',
    ),
    manifest: sql<[string, string, string], ManifestRow>(
      'SELECT * FROM manifest WHERE registry = ? AND repository = ? AND reference = ?',
    ),
    putManifest: sql<[ManifestRow]>(
      'INSERT OR REPLACE INTO manifest VALUES ' +
        '(@registry, @repository, @reference, @digest, @media_type, @size, @etag, @checked_at)',
    ),
    removeManifest: sql<[string, string, string]>(
      'DELETE FROM manifest WHERE registry = ? AND repository = ? AND reference = ?',
    ),
    deleteManifests: sql<[string, string]>(
      'DELETE FROM manifest WHERE digest = ? AND NOT EXISTS (SELECT 1 FROM blob WHERE digest = ?)',
    ),
  }
}

function toBlobRow(raw: RawBlob): BlobRow {
  return {
    id: raw.id,
    // Only digests that parseDigest() made are ever written.
    digest: raw.digest as Digest,
    size: raw.size,
    mediaType: raw.media_type ?? undefined,
    state: raw.state,
    presentBytes: raw.present_bytes,
    created: raw.created,
    accessed: raw.accessed,
    pinned: raw.pinned === 1,
  }
}
