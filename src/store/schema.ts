/** PRAGMA user_version. A database with a higher one is kept aside, never touched. */
export const SCHEMA_VERSION = 1

/**
 * chunk.crcs: 16 unsigned 32-bit little-endian crc32s, one per block, 0 where the block is absent.
 * chunk.sources: 16 unsigned 16-bit little-endian source ids, 0 for unknown.
 * blob.accessed: microseconds since 1970, made unique by counting up, so that "least recently used" has no ties.
 * open_blob: blobs whose data file may have changed since the last clean close; what the scrub looks at.
 * doomed: blobs that have left the index and whose chunk rows or file are not gone yet.
 * Ids are never used again (AUTOINCREMENT), so a late write for a removed blob cannot land in its successor.
 */
export const SCHEMA = `
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE blob (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  digest TEXT NOT NULL UNIQUE,
  size INTEGER NOT NULL,
  media_type TEXT,
  state TEXT NOT NULL CHECK (state IN ('partial', 'complete')),
  present_bytes INTEGER NOT NULL DEFAULT 0,
  created INTEGER NOT NULL,
  accessed INTEGER NOT NULL,
  pinned INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX blob_accessed ON blob (accessed);
CREATE TABLE chunk (
  blob_id INTEGER NOT NULL,
  idx INTEGER NOT NULL,
  mask INTEGER NOT NULL,
  crcs BLOB NOT NULL,
  sources BLOB NOT NULL,
  PRIMARY KEY (blob_id, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE open_blob (blob_id INTEGER PRIMARY KEY) STRICT;
CREATE TABLE doomed (blob_id INTEGER PRIMARY KEY, digest TEXT NOT NULL) STRICT;
CREATE TABLE place (
  registry TEXT NOT NULL,
  repository TEXT NOT NULL,
  digest TEXT NOT NULL,
  visibility TEXT NOT NULL,
  until INTEGER NOT NULL,
  size INTEGER,
  PRIMARY KEY (registry, repository, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX place_digest ON place (digest);
CREATE TABLE manifest (
  registry TEXT NOT NULL,
  repository TEXT NOT NULL,
  reference TEXT NOT NULL,
  digest TEXT NOT NULL,
  media_type TEXT NOT NULL,
  size INTEGER NOT NULL,
  etag TEXT,
  checked_at INTEGER NOT NULL,
  PRIMARY KEY (registry, repository, reference)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_digest ON manifest (digest);
`
