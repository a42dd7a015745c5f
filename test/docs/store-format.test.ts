import Database from 'better-sqlite3'
import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import { test } from 'node:test'
import { SCHEMA, SCHEMA_VERSION } from '../../src/store/schema.ts'
import { repositoryFile } from '../core/repository.ts'

test('the page names every table, column and index of the schema, and its version', async () => {
  const page = await fs.readFile(repositoryFile('docs/store-format.md'), 'utf8')
  const words = new Set(page.match(/[a-z_]+/g))
  const db = new Database(':memory:')
  try {
    db.exec(SCHEMA)
    const made = db
      .prepare<[], { type: string; name: string }>(
        "SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'",
      )
      .all()
    assert.ok(made.length > 0)
    for (const { type, name } of made) {
      assert.ok(words.has(name), `${type} ${name}`)
      if (type !== 'table') continue
      const columns = db.prepare<[string], { name: string }>('SELECT name FROM pragma_table_info(?)').all(name)
      for (const column of columns) assert.ok(words.has(column.name), `${name}.${column.name}`)
    }
  } finally {
    db.close()
  }
  assert.match(page, new RegExp(`^\`user_version\` is ${SCHEMA_VERSION}\\.`, 'm'))
})
