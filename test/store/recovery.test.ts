import assert from 'node:assert/strict'
import Database from 'better-sqlite3'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs/promises'
import path from 'node:path'
import readline from 'node:readline'
import { test } from 'node:test'
import { BLOCK_BYTES, blockCount, errorCode, ShoalError } from '../../src/core/index.ts'
import { Bench, blockOf, contentOf, digestOf, MIB, mustFind, put, putWhole, systemError, until } from './harness.ts'
import { KILL_BLOBS } from './kill-child.ts'

const CHILD = new URL('./kill-child.js', import.meta.url).pathname

interface RunningChild extends AsyncDisposable {
  readonly pid: number
  /** Resolves when so many lines have come. */
  lines(count: number): Promise<void>
  kill(): Promise<void>
}

function startChild(directory: string): RunningChild {
  const child = spawn(process.execPath, [CHILD, directory], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  let seen = 0
  const reader = readline.createInterface({ input: child.stdout })
  reader.on('line', () => (seen += 1))
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await exited
  }
  return {
    pid: child.pid!,
    lines: async count => {
      while (seen < count) await Promise.race([once(reader, 'line'), exited.then(() => assert.fail('the child ended'))])
    },
    kill,
    [Symbol.asyncDispose]: kill,
  }
}

/** A copy of a store as kill -9 would leave it: what is on the disk while it is open. */
async function copyOf(from: Bench): Promise<Bench> {
  const copy = await Bench.open()
  await fs.cp(from.directory, copy.directory, { recursive: true })
  return copy
}

test('kill -9 in the middle of writes loses work and never serves a wrong byte', async () => {
  await using bench = await Bench.open()
  const contents = KILL_BLOBS.map(({ seed, size }) => contentOf(size, seed))
  let served = 0
  for (const lines of [2, 40, 150, 90, 200, 300]) {
    await using child = startChild(bench.directory)
    await child.lines(lines)
    await child.kill()
    const store = await bench.store()
    let listed = 0
    for await (const { presentBytes } of store.list()) listed += presentBytes
    assert.equal(store.stats().bytes, listed)
    for (const bytes of contents) {
      const blob = store.find(digestOf(bytes))
      if (blob === undefined) continue
      for (let block = 0; block < blockCount(bytes.byteLength); block += 1) {
        if (!blob.has(block)) continue
        const expected = blockOf(bytes, block)
        const read = await blob.read(block * BLOCK_BYTES, expected.byteLength)
        assert.ok(read !== undefined && expected.equals(read))
        served += 1
      }
      await blob.settled()
    }
    assert.equal(bench.logged('bad block').length, 0)
    assert.equal(bench.logged('quarantined').length, 0)
    assert.deepEqual(await fs.readdir(path.join(bench.directory, 'trash')), [])
    await store.close()
  }
  assert.ok(served > 0)
})

test('a second opener in another process is refused, with the pid of the first, and let in when it is gone', async () => {
  await using bench = await Bench.open()
  await using child = startChild(bench.directory)
  await child.lines(1)
  await assert.rejects(bench.store(), (error: unknown) => {
    assert.ok(error instanceof ShoalError)
    assert.equal(error.code, 'ERR_STORE_LOCKED')
    assert.equal(error.details['pid'], child.pid)
    return true
  })
  await child.kill()
  await bench.store()
})

test('a second opener in this process is refused as well, and the first goes on', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  await assert.rejects(bench.store(), error => errorCode(error) === 'ERR_STORE_LOCKED')
  await putWhole(store, contentOf(10))
})

test('files and directories are for the daemon alone, and the node keeps its id', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blob = await putWhole(store, contentOf(10))
  const modeOf = async (file: string): Promise<number> => (await fs.stat(file)).mode & 0o777
  for (const name of ['index.db', 'index.db-wal', 'lock', 'id']) {
    assert.equal(await modeOf(path.join(bench.directory, name)), 0o600, name)
  }
  assert.equal(await modeOf(bench.file(blob.digest)), 0o600)
  assert.equal(await modeOf(path.dirname(bench.file(blob.digest))), 0o700)
  assert.match(store.id, /^[0-9a-f]{8}-[0-9a-f]{4}-4/)
  await store.close()
  assert.equal((await bench.store()).id, store.id)
})

test('a crash leaves blobs that were being filled; blocks without rows are given back to the disk', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(8 * BLOCK_BYTES)
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  await put(blob, bytes, [0])
  bench.clock.advance(1000)
  await put(blob, bytes, [2, 3, 4, 5, 6, 7])
  // The rows of the last six are still in the batch.
  await using crashed = await copyOf(bench)
  const before = await fs.stat(crashed.file(blob.digest))
  const again = await crashed.store()
  const found = mustFind(again, blob.digest)
  assert.deepEqual(found.missing({ first: 0, end: 8 }), [{ first: 1, end: 8 }])
  assert.equal(again.stats().bytes, BLOCK_BYTES)
  assert.equal(crashed.logged('scrubbed').length, 1)
  const after = await fs.stat(crashed.file(blob.digest))
  assert.ok(after.blocks < before.blocks && after.blocks * 512 >= BLOCK_BYTES)
  await put(found, bytes)
  assert.equal(await found.settled(), 'complete')
})

test('a blob that was all present and not yet proven at a crash is proven in the next run', async () => {
  await using bench = await Bench.open()
  const [good, bad] = [contentOf(1000, 1), contentOf(1000, 2)]
  const store = await bench.store()
  for (const digest of [digestOf(good), digestOf(bad)]) {
    const blob = store.ensure(digest, { size: 1000 })
    await blob.write(0, [Buffer.from(good)], 'registry:liar')
    await blob.settled()
  }
  await store.close()
  const db = new Database(path.join(bench.directory, 'index.db'))
  db.exec(`UPDATE blob SET state = 'partial'`)
  db.close()
  const again = await bench.store()
  const blob = mustFind(again, digestOf(good))
  assert.equal(await blob.settled(), 'complete')
  assert.equal(again.find(digestOf(bad)), undefined)
})

test('a crash between two transactions, which leaves a wrong sum, is corrected by the scrub', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(2 * BLOCK_BYTES)
  await put(store.ensure(digestOf(bytes), { size: bytes.byteLength }), bytes, [0])
  await store.close()
  const db = new Database(path.join(bench.directory, 'index.db'))
  db.exec(`UPDATE blob SET present_bytes = size; INSERT INTO open_blob SELECT id FROM blob`)
  db.close()
  const again = await bench.store()
  assert.equal(again.stats().bytes, BLOCK_BYTES)
  assert.equal(await mustFind(again, digestOf(bytes)).settled(), 'partial')
})

test('a wrong sum that no scrub saw does not make a blob complete', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(2 * BLOCK_BYTES)
  await put(store.ensure(digestOf(bytes), { size: bytes.byteLength }), bytes, [0])
  await store.close()
  const db = new Database(path.join(bench.directory, 'index.db'))
  db.exec(`UPDATE blob SET present_bytes = size`)
  db.close()
  const again = await bench.store()
  assert.equal(await mustFind(again, digestOf(bytes)).settled(), 'partial')
  assert.equal(again.stats().bytes, BLOCK_BYTES)
})

test('a removal that a crash interrupted is finished, whether or not the digest came back', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const [gone, back] = [contentOf(1000, 1), contentOf(2000, 2)]
  for (const bytes of [gone, back]) await putWhole(store, bytes)
  await store.close()
  const db = new Database(path.join(bench.directory, 'index.db'))
  db.exec(`INSERT INTO doomed SELECT id, digest FROM blob WHERE size = 1000; DELETE FROM blob WHERE size = 1000`)
  db.exec(`INSERT INTO doomed SELECT 99, digest FROM blob`)
  db.close()
  await fs.writeFile(path.join(bench.directory, 'trash', '17'), 'left over')
  const again = await bench.store()
  await assert.rejects(fs.access(bench.file(digestOf(gone))), { code: 'ENOENT' })
  assert.ok(back.equals((await mustFind(again, digestOf(back)).read(0, 2000))!))
  assert.deepEqual(await fs.readdir(path.join(bench.directory, 'trash')), [])
  await again.close()
  const after = new Database(path.join(bench.directory, 'index.db'))
  assert.equal(after.prepare('SELECT count(*) FROM doomed').pluck().get(), 0)
  assert.equal(after.prepare('SELECT count(*) FROM chunk').pluck().get(), 1)
  after.close()
})

test('a block that was changed on the disk is a miss, counted and logged, and its neighbours are served', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(3 * BLOCK_BYTES)
  const first = await bench.store()
  await putWhole(first, bytes)
  await first.close()
  await using file = await fs.open(bench.file(digestOf(bytes)), 'r+')
  await file.write(Buffer.from([(bytes[BLOCK_BYTES + 5] ?? 0) ^ 1]), 0, 1, BLOCK_BYTES + 5)
  const store = await bench.store()
  const blob = mustFind(store, digestOf(bytes))
  assert.equal(await blob.read(0, bytes.byteLength), undefined)
  assert.deepEqual(blob.missing({ first: 0, end: 3 }), [{ first: 1, end: 2 }])
  assert.equal(blob.state, 'partial')
  assert.equal(await bench.metric('shoal_store_bad_blocks_total'), 1)
  assert.equal(bench.logged('bad block')[0]?.fields['source'], 'registry:test')
  assert.equal(store.stats().bytes, 2 * BLOCK_BYTES)
  assert.ok(blockOf(bytes, 0).equals((await blob.read(0, BLOCK_BYTES))!))
  await put(blob, bytes, [1])
  assert.equal(await blob.settled(), 'complete')
  await store.close()
  const again = mustFind(await bench.store(), digestOf(bytes))
  assert.ok(bytes.equals((await again.read(0, bytes.byteLength))!))
})

test('a data file that lost its end has lost only the blocks that were there', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(3 * BLOCK_BYTES)
  const first = await bench.store()
  await putWhole(first, bytes)
  await first.close()
  await fs.truncate(bench.file(digestOf(bytes)), BLOCK_BYTES + 10)
  const blob = mustFind(await bench.store(), digestOf(bytes))
  assert.equal(await blob.read(5, bytes.byteLength - 5), undefined)
  assert.deepEqual(blob.missing({ first: 0, end: 3 }), [{ first: 1, end: 3 }])
  assert.ok(blockOf(bytes, 0).equals((await blob.read(0, BLOCK_BYTES))!))
})

test('a data file that loses its end while it is open loses only the blocks that were there', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(3 * BLOCK_BYTES)
  const blob = await putWhole(await bench.store(), bytes)
  await fs.truncate(bench.file(blob.digest), BLOCK_BYTES + 10)
  assert.equal(blob.readNow(new Uint8Array(BLOCK_BYTES), BLOCK_BYTES), false)
  assert.equal(await blob.read(BLOCK_BYTES, BLOCK_BYTES), undefined)
  assert.deepEqual(blob.missing({ first: 0, end: 3 }), [{ first: 1, end: 2 }])
  assert.ok(blockOf(bytes, 0).equals((await blob.read(0, BLOCK_BYTES))!))
})

test('a data file that is gone takes its blob along when it is first read', async () => {
  await using bench = await Bench.open()
  const bytes = contentOf(3 * BLOCK_BYTES)
  const first = await bench.store()
  await putWhole(first, bytes)
  await first.close()
  await fs.rm(bench.file(digestOf(bytes)))
  const store = await bench.store()
  const blob = mustFind(store, digestOf(bytes))
  assert.equal(await blob.read(0, 10), undefined)
  assert.equal(store.find(blob.digest), undefined)
  assert.equal(bench.logged('data file is missing').length, 1)
  await until(() => store.stats().pendingDeletionBytes === 0, 'the rows are deleted')
  assert.equal((await putWhole(store, bytes)).state, 'complete')
})

test('a data file that is gone after a crash is found out by the scrub', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(2 * BLOCK_BYTES)
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  await put(blob, bytes, [0])
  for await (const summary of store.list()) assert.equal(summary.presentBytes, BLOCK_BYTES)
  await using crashed = await copyOf(bench)
  await fs.rm(crashed.file(blob.digest))
  const again = await crashed.store()
  assert.equal(again.find(blob.digest), undefined)
  assert.equal(again.stats().bytes, 0)
})

test('a data file that is longer than its blob is cut by the scrub', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(2 * BLOCK_BYTES)
  await put(store.ensure(digestOf(bytes), { size: bytes.byteLength }), bytes, [0])
  for await (const summary of store.list()) assert.ok(summary)
  await using crashed = await copyOf(bench)
  await fs.appendFile(crashed.file(digestOf(bytes)), Buffer.alloc(10 * MIB))
  await crashed.store()
  assert.equal((await fs.stat(crashed.file(digestOf(bytes)))).size, bytes.byteLength)
})

test('one data file that cannot be scrubbed does not keep the store from opening', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(8 * BLOCK_BYTES)
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  await put(blob, bytes, [2, 3, 4, 5, 6, 7])
  await using crashed = await copyOf(bench)
  crashed.faults.punch = () => Object.assign(new Error('injected'), { code: 'EIO' })
  await crashed.store()
  assert.equal(crashed.logged('could not be scrubbed').length, 1)
})

test('files that cannot be deleted do not keep the store from opening, and are tried again', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const blob = await putWhole(store, contentOf(1000))
  bench.faults.retire = () => systemError('EIO')
  await store.remove(blob.digest)
  await store.close()
  delete bench.faults.retire
  bench.faults.emptyTrash = () => systemError('EACCES')
  bench.faults.deleteOrphan = () => systemError('EPERM')
  const second = await bench.store()
  assert.equal(bench.logged('trash could not be emptied').length, 1)
  assert.equal(bench.logged('could not be deleted').length, 1)
  assert.equal(second.find(blob.digest), undefined)
  await second.close()
  await fs.access(bench.file(blob.digest))
  delete bench.faults.emptyTrash
  delete bench.faults.deleteOrphan
  await bench.store()
  await assert.rejects(fs.access(bench.file(blob.digest)), { code: 'ENOENT' })
})

test('a blob larger than any, which an earlier run let in, is forgotten', async () => {
  await using bench = await Bench.open()
  const first = await bench.store()
  const lie = digestOf(contentOf(5))
  first.ensure(lie, { size: 5 })
  const blob = await putWhole(first, contentOf(1000))
  await first.close()
  const file = path.join(bench.directory, 'index.db')
  const db = new Database(file)
  db.prepare('UPDATE blob SET size = ? WHERE digest = ?').run(BigInt(Number.MAX_SAFE_INTEGER), lie)
  db.close()
  const store = await bench.store()
  assert.equal(bench.logged('larger than any').length, 1)
  assert.equal(store.find(lie), undefined)
  assert.equal(mustFind(store, blob.digest).state, 'complete')
  assert.equal(store.stats().blobs, 1)
  await store.close()
  const after = new Database(file, { readonly: true })
  assert.equal(after.prepare('SELECT count(*) FROM doomed').pluck().get(), 0)
  after.close()
})

for (const [what, damage] of [
  [
    'that is no database',
    async (file: string) => fs.writeFile(file, 'this is not a database, but it is long enough'.repeat(100)),
  ],
  ['that was cut short', async (file: string) => fs.truncate(file, 5000)],
  [
    'with other tables',
    async (file: string) => {
      await fs.rm(file)
      const db = new Database(file)
      db.exec('CREATE TABLE unrelated (x)')
      db.close()
    },
  ],
  [
    'that lacks a column',
    async (file: string) => {
      const db = new Database(file)
      db.exec('DROP TABLE manifest; CREATE TABLE manifest (x)')
      db.close()
      await Promise.resolve()
    },
  ],
] as const) {
  test(`an index ${what} is kept aside, said so, and the store starts afresh`, async () => {
    await using bench = await Bench.open()
    const bytes = contentOf(1000)
    const first = await bench.store()
    await putWhole(first, bytes)
    await first.close()
    const file = path.join(bench.directory, 'index.db')
    await damage(file)
    const damaged = await fs.readFile(file)
    const store = await bench.store()
    const [line] = bench.logged('index is corrupt')
    const kept = line?.fields['kept']
    assert.ok(line?.level === 'warn' && typeof kept === 'string' && kept.startsWith(`${file}.corrupt-`))
    assert.ok(damaged.equals(await fs.readFile(kept)) || what === 'that lacks a column')
    assert.equal(store.find(digestOf(bytes)), undefined)
    assert.equal(store.stats().bytes, 0)
    await store.collect()
    await assert.rejects(fs.access(bench.file(digestOf(bytes))), { code: 'ENOENT' })
    await putWhole(store, bytes)
    await store.close()
    assert.equal(mustFind(await bench.store(), digestOf(bytes)).state, 'complete')
  })
}

test('an index of a newer version is kept aside under a name that says so, each time under another', async () => {
  await using bench = await Bench.open()
  for (let round = 0; round < 3; round += 1) {
    await (await bench.store()).close()
    const db = new Database(path.join(bench.directory, 'index.db'))
    db.pragma('user_version = 99')
    db.close()
  }
  const store = await bench.store()
  assert.equal((await putWhole(store, contentOf(10))).state, 'complete')
  assert.equal(bench.logged('newer version').length, 3)
  const kept = (await fs.readdir(bench.directory)).filter(name => /^index\.db\.version-99-\w+(-\d)?$/.test(name))
  assert.equal(kept.length, 3)
})

test('damage that only the scrub runs into is treated like damage found at once', async () => {
  await using bench = await Bench.open()
  const store = await bench.store()
  const bytes = contentOf(80 * MIB)
  const blob = store.ensure(digestOf(bytes), { size: bytes.byteLength })
  await put(blob, bytes)
  await blob.settled()
  await store.close()
  const file = path.join(bench.directory, 'index.db')
  const db = new Database(file)
  db.exec('INSERT INTO open_blob SELECT id FROM blob')
  const root = db.prepare(`SELECT rootpage FROM sqlite_schema WHERE name = 'chunk'`).pluck().get() as number
  const page = db.pragma('page_size', { simple: true }) as number
  db.close()
  await using handle = await fs.open(file, 'r+')
  await handle.write(Buffer.alloc(page, 0xff), 0, page, (root - 1) * page)
  const again = await bench.store()
  assert.equal(bench.logged('index is corrupt').length, 1)
  assert.equal(again.find(blob.digest), undefined)
})

test('data files beside a new index are swept in the background, and what is stored meanwhile is not', async () => {
  await using bench = await Bench.open()
  const contents = [1, 2, 3, 4, 5].map(seed => contentOf(1000, seed))
  const first = await bench.store()
  for (const bytes of contents) await putWhole(first, bytes)
  await first.close()
  await fs.rm(path.join(bench.directory, 'index.db'))
  const store = await bench.store()
  const kept = await putWhole(store, contents[0]!)
  await until(() => bench.logged('without a row').length === 1, 'the sweep ends')
  assert.ok(contents[0]!.equals((await kept.read(0, 1000))!))
  await fs.access(bench.file(kept.digest))
  await assert.rejects(fs.access(bench.file(digestOf(contents[1]!))), { code: 'ENOENT' })
})

test('a limit of 0 is chosen from the free bytes once, and remembered', async () => {
  await using bench = await Bench.open()
  bench.faults.freeBytes = () => 1000 * MIB
  const first = await bench.store({ maxBytes: 0 })
  assert.equal(first.stats().maxBytes, 800 * MIB)
  await first.close()
  bench.faults.freeBytes = () => 500 * MIB
  const second = await bench.store({ maxBytes: 0 })
  assert.equal(second.stats().maxBytes, 800 * MIB)
  assert.equal(second.stats().freeBytes, 500 * MIB)
  await second.close()
  assert.equal((await bench.store({ maxBytes: 10 })).stats().maxBytes, 10)
})

test('a state directory that cannot be made or read is an error of the disk', async () => {
  await using bench = await Bench.open()
  await fs.writeFile(path.join(bench.directory, 'file'), '')
  const inside = path.join(bench.directory, 'file', 'state')
  await assert.rejects(bench.store({ path: inside }), error => errorCode(error) === 'ERR_STORE_IO')
  await fs.mkdir(path.join(bench.directory, 'index.db-wal'))
  await assert.rejects(bench.store(), error => errorCode(error) === 'ERR_STORE_IO')
  await fs.rmdir(path.join(bench.directory, 'index.db-wal'))
  bench.faults.freeBytes = () => undefined
  await assert.rejects(bench.store({ maxBytes: 0 }), error => errorCode(error) === 'ERR_STORE_IO')
  const store = await bench.store()
  assert.equal(store.stats().freeBytes, undefined)
})
