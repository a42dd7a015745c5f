import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import Database from 'better-sqlite3'
import { moveLog } from '../../src/store/disk-worker.ts'
import { DiskThread } from '../../src/store/disk-thread.ts'
import { contentOf, MIB } from './harness.ts'

async function inDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-thread-'))
  try {
    await work(directory)
  } finally {
    await fs.rm(directory, { recursive: true })
  }
}

test('files are hashed in the order asked, up to the size given', async () => {
  await inDirectory(async directory => {
    await using thread = new DiskThread()
    const bytes = contentOf(3 * MIB + 17)
    const file = path.join(directory, 'data')
    await fs.writeFile(file, bytes)
    await using handle = await fs.open(file)
    const expected = (algorithm: string, size: number): string =>
      createHash(algorithm).update(bytes.subarray(0, size)).digest('hex')
    const hashes = [
      thread.hash(handle.fd, bytes.byteLength, 'sha256'),
      thread.hash(handle.fd, 100, 'sha512'),
      thread.hash(handle.fd, 0, 'sha256'),
    ]
    assert.deepEqual(await Promise.all(hashes), [
      expected('sha256', bytes.byteLength),
      expected('sha512', 100),
      expected('sha256', 0),
    ])
    await assert.rejects(thread.hash(handle.fd, bytes.byteLength + 1, 'sha256'), /the file ends at/)
    await assert.rejects(thread.hash(999_999, 1, 'sha256'), { code: 'EBADF' })
  })
})

test('a checkpoint moves the log into the database while it is in use', async () => {
  await inDirectory(async directory => {
    await using thread = new DiskThread()
    const file = path.join(directory, 'x.db')
    const db = new Database(file)
    db.pragma('journal_mode = WAL')
    db.pragma('wal_autocheckpoint = 0')
    db.exec('CREATE TABLE t (x)')
    const insert = db.prepare('INSERT INTO t VALUES (?)')
    for (let i = 0; i < 100; i += 1) insert.run('x'.repeat(4000))
    const before = (await fs.stat(file)).size
    await thread.checkpoint(file)
    assert.ok((await fs.stat(file)).size > before + 300_000)
    insert.run('y')
    db.close()
    await assert.rejects(thread.checkpoint(path.join(directory, 'none.db')), { code: 'SQLITE_CANTOPEN' })
  })
})

test('a checkpoint goes on while there is more in the log than it has moved, but not for ever', () => {
  const passes = [
    { log: 100, checkpointed: 90 },
    { log: 103, checkpointed: 103 },
  ]
  moveLog(() => passes.shift() ?? assert.fail('all of it was moved'))
  assert.equal(passes.length, 0)
  let busy = 0
  moveLog(() => ({ log: 100, checkpointed: (busy += 1) }))
  assert.equal(busy, 5)
})

test('a file is flushed, and one that cannot be is told apart', async () => {
  await inDirectory(async directory => {
    await using thread = new DiskThread()
    await using handle = await fs.open(path.join(directory, 'data'), 'w')
    await handle.writeFile(contentOf(1000))
    await thread.sync(handle.fd)
    await assert.rejects(thread.sync(999_999), { code: 'EBADF' })
    await thread.close()
    await assert.rejects(thread.sync(handle.fd), { code: 'ECANCELED' })
  })
})

test('closing stops the running job at its next piece, rejects the others, and refuses more', async () => {
  await inDirectory(async directory => {
    const thread = new DiskThread()
    const file = path.join(directory, 'sparse')
    await fs.writeFile(file, '')
    await fs.truncate(file, 64 * 1024 ** 3)
    await using handle = await fs.open(file)
    const jobs = [1, 2].map(() => thread.hash(handle.fd, 64 * 1024 ** 3, 'sha256'))
    const outcomes = Promise.allSettled(jobs)
    await thread.close()
    for (const outcome of await outcomes) {
      assert.equal(outcome.status === 'rejected' && (outcome.reason as { code: string }).code, 'ECANCELED')
    }
    await assert.rejects(thread.hash(handle.fd, 1, 'sha256'), { code: 'ECANCELED' })
    await thread.close()
  })
})
