import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { openNative } from '../../src/store/native.ts'
import { contentOf } from './harness.ts'

/** No descriptor of this process. */
const NO_FD = 999_999

test('system calls that fail say why, by the name of the errno', async () => {
  const native = openNative()
  assert.equal(native.readNow(NO_FD, new Uint8Array(1), 0), false)
  assert.throws(() => native.tryLock(NO_FD), { code: 'EBADF', syscall: 'flock' })
  await assert.rejects(native.punchHole(NO_FD, 0, 1), { code: 'EBADF', syscall: 'fallocate' })
})

test('bytes in the page cache are read into the middle of a buffer and nowhere else', async () => {
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-native-'))
  try {
    const bytes = contentOf(10_000)
    await fs.writeFile(path.join(directory, 'file'), bytes)
    await using file = await fs.open(path.join(directory, 'file'))
    const target = Buffer.alloc(300)
    assert.equal(openNative().readNow(file.fd, target.subarray(100, 200), 5000), true)
    assert.ok(target.subarray(100, 200).equals(bytes.subarray(5000, 5100)))
    assert.ok(target.subarray(0, 100).equals(Buffer.alloc(100)) && target.subarray(200).equals(Buffer.alloc(100)))
    assert.equal(openNative().readNow(file.fd, target, 9_900), false)
    assert.equal(openNative().readNow(file.fd, new Uint8Array(0), 0), true)
  } finally {
    await fs.rm(directory, { recursive: true })
  }
})

test('a lock is held by one descriptor at a time', async () => {
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-native-'))
  try {
    const native = openNative()
    const one = await fs.open(path.join(directory, 'lock'), 'w')
    await using two = await fs.open(path.join(directory, 'lock'), 'w')
    assert.deepEqual([native.tryLock(one.fd), native.tryLock(two.fd)], [true, false])
    await one.close()
    assert.equal(native.tryLock(two.fd), true)
  } finally {
    await fs.rm(directory, { recursive: true })
  }
})
