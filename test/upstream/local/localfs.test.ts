import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { Registry } from 'prom-client'
import { digestHex, errorCode, type Digest, type ErrorCode } from '../../../src/core/index.ts'
import { LocalfsOrigin, type LocalfsOptions } from '../../../src/upstream/local/localfs.ts'
import { blobSourceConformance } from '../../conformance/blob-source.ts'
import { digestOf } from '../../support/generated-blob.ts'
import { collect, keyOf, metric, spelled, testDeps } from '../rig.ts'

const BLOB = Buffer.from('a blob in a file')
const DIGEST = digestOf(BLOB)

let root = ''
let made = 0

before(async () => {
  root = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-localfs-'))
})

after(() => fs.rm(root, { recursive: true, force: true }))

async function newDirectory(blobs: Iterable<readonly [Digest, Uint8Array]> = []): Promise<string> {
  made += 1
  const directory = path.join(root, String(made))
  await fs.mkdir(directory)
  for (const [digest, bytes] of blobs) await fs.writeFile(path.join(directory, digestHex(digest)), bytes)
  return directory
}

function openIn(options: Partial<LocalfsOptions>): Promise<LocalfsOrigin> {
  return LocalfsOrigin.open(testDeps(), { name: 'demo', altDirs: [], ...options })
}

function failsWith(code: ErrorCode, text = '') {
  return (error: unknown): boolean => errorCode(error) === code && spelled(error).includes(text)
}

blobSourceConformance('a directory of blobs', async blobs => {
  const origin = await openIn({ dir: await newDirectory(blobs) })
  return { source: origin, key: keyOf, close: () => origin.close() }
})

blobSourceConformance('several directories of blobs', async blobs => {
  const all = [...blobs]
  const origin = await openIn({
    dir: await newDirectory(all.slice(0, 1)),
    altDirs: [await newDirectory(all.slice(1, 2)), await newDirectory(all.slice(2))],
  })
  return { source: origin, key: keyOf, close: () => origin.close() }
})

test('the first directory that has a blob counts', async () => {
  const [dir, other, third] = [await newDirectory(), await newDirectory(), await newDirectory()]
  const origin = await openIn({ dir, altDirs: [other, third] })
  const sizes: (number | undefined)[] = []
  for (const [directory, bytes] of [
    [third, 'ccc'],
    [other, 'bb'],
    [dir, 'a'],
  ] as const) {
    await fs.writeFile(path.join(directory, digestHex(DIGEST)), bytes)
    sizes.push((await origin.stat(keyOf(DIGEST)))?.size)
  }
  assert.deepEqual(sizes, [3, 2, 1])
})

test('a single file is whatever blob is asked for', async () => {
  const directory = await newDirectory([[DIGEST, BLOB]])
  const origin = await openIn({ blobFile: path.join(directory, digestHex(DIGEST)), dir: directory })
  for (const digest of [DIGEST, `sha256:${'1'.repeat(64)}`]) {
    assert.deepEqual(await origin.stat(keyOf(digest)), { size: BLOB.length })
    assert.deepEqual(await collect(await origin.open(keyOf(digest), { start: 2, end: 6 })), BLOB.subarray(2, 6))
  }
})

test('a link to a file is a blob; a directory, a pipe and a link to nowhere are not', async () => {
  const dir = await newDirectory()
  const file = path.join(dir, 'elsewhere')
  await fs.writeFile(file, BLOB)
  const place = (letter: string): string => path.join(dir, letter.repeat(64))
  await fs.symlink(file, place('a'))
  await fs.mkdir(place('b'))
  await promisify(execFile)('mkfifo', [place('c')])
  await fs.symlink(path.join(dir, 'nowhere'), place('d'))
  const origin = await openIn({ dir })
  const sizes = await Promise.all(
    ['a', 'b', 'c', 'd'].map(async letter => (await origin.stat(keyOf(`sha256:${letter.repeat(64)}`)))?.size),
  )
  assert.deepEqual(sizes, [BLOB.length, undefined, undefined, undefined])
  assert.equal(await origin.open(keyOf(`sha256:${'c'.repeat(64)}`), { start: 0, end: 1 }), undefined)
})

test('a file that is cut or gone while it is read is an error', async () => {
  const dir = await newDirectory([[DIGEST, BLOB]])
  const file = path.join(dir, digestHex(DIGEST))
  const origin = await openIn({ dir })
  const whole = { start: 0, end: BLOB.length }
  const body = await origin.open(keyOf(DIGEST), whole)
  const late = await origin.open(keyOf(DIGEST), whole)
  await fs.truncate(file, 5)
  await assert.rejects(collect(body), failsWith('ERR_UPSTREAM_BODY', file))
  await assert.rejects(origin.open(keyOf(DIGEST), whole), failsWith('ERR_UPSTREAM_BODY', '5 bytes'))
  await fs.rm(file)
  await assert.rejects(collect(late), failsWith('ERR_UPSTREAM_TRANSPORT', 'ENOENT'))
  assert.equal(await origin.stat(keyOf(DIGEST)), undefined)
})

test('what the file system refuses is a failure, and no other directory is asked instead', async () => {
  const [dir, other] = [await newDirectory(), await newDirectory([[DIGEST, BLOB]])]
  const file = path.join(dir, digestHex(DIGEST))
  await fs.symlink(file, file)
  const origin = await openIn({ dir, altDirs: [other] })
  await assert.rejects(origin.stat(keyOf(DIGEST)), failsWith('ERR_UPSTREAM_TRANSPORT', 'ELOOP'))
})

test(
  'a file that may not be read is a failure',
  { skip: process.getuid?.() === 0 ? 'root may read everything' : false },
  async () => {
    const dir = await newDirectory([[DIGEST, BLOB]])
    await fs.chmod(path.join(dir, digestHex(DIGEST)), 0)
    const origin = await openIn({ dir })
    const body = await origin.open(keyOf(DIGEST), { start: 0, end: 1 })
    await assert.rejects(collect(body), failsWith('ERR_UPSTREAM_TRANSPORT', 'EACCES'))
  },
)

test('paths that do not lead where they should are errors of the configuration', async () => {
  const dir = await newDirectory([[DIGEST, BLOB]])
  const file = path.join(dir, digestHex(DIGEST))
  const missing = path.join(dir, 'missing')
  for (const [options, text] of [
    [{}, 'origins."demo".dir is missing, and so is blob_file'],
    [{ dir: missing }, 'origins."demo".dir cannot be read (ENOENT)'],
    [{ dir: file }, 'origins."demo".dir is not a directory'],
    [{ dir, altDirs: [dir, missing] }, 'origins."demo".alt_dirs cannot be read (ENOENT)'],
    [{ dir, altDirs: [file] }, 'origins."demo".alt_dirs is not a directory'],
    [{ blobFile: missing }, 'origins."demo".blob_file cannot be read (ENOENT)'],
    [{ blobFile: dir }, 'origins."demo".blob_file is not a file'],
  ] as const) {
    await assert.rejects(openIn(options), failsWith('ERR_CONFIG_INVALID', text), text)
  }
})

test('requests and bytes are counted under the kind of origin', async () => {
  const metrics = new Registry()
  const dir = await newDirectory([[DIGEST, BLOB]])
  const origin = await LocalfsOrigin.open({ ...testDeps(), metrics }, { name: 'demo', dir, altDirs: [] })
  assert.equal(origin.name, 'localfs:demo')
  await collect(await origin.open(keyOf(DIGEST), { start: 1, end: 5 }))
  await origin.stat(keyOf(`sha256:${'0'.repeat(64)}`))
  await assert.rejects(origin.open(keyOf(DIGEST), { start: 0, end: 1000 }))
  assert.equal(await metric(metrics, 'shoal_upstream_bytes_total'), 4)
  for (const outcome of ['success', 'absent', 'failed']) {
    const labels = { origin_kind: 'localfs', outcome }
    assert.equal(await metric(metrics, 'shoal_upstream_requests_total', labels), 1, outcome)
  }
})

test('a closed origin refuses everything, and what was being read is read to its end', async () => {
  await using origin = await openIn({ dir: await newDirectory([[DIGEST, BLOB]]) })
  const body = await origin.open(keyOf(DIGEST), { start: 0, end: BLOB.length })
  await origin.close()
  await origin.close()
  const closed = failsWith('ERR_CLOSED')
  await assert.rejects(origin.stat(keyOf(DIGEST)), closed)
  await assert.rejects(origin.open(keyOf(DIGEST), { start: 0, end: 1 }), closed)
  assert.deepEqual(await collect(body), BLOB)
})
