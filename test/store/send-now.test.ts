import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { describe, test } from 'node:test'
import { BLOCK_BYTES, blockCount } from '../../src/core/index.ts'
import { until } from '../support/until.ts'
import { Bench, contentOf, digestOf, put } from './harness.ts'

/** Both ends of a connection, and what has arrived at the far one. */
async function connection(): Promise<{ fd: number; received: () => Buffer; close: () => void }> {
  const pieces: Buffer[] = []
  const server = net.createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection') as Promise<[net.Socket]>
  const client = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1')
  const [socket] = await accepted
  client.on('data', piece => pieces.push(piece))
  const { fd } = (socket as net.Socket & { _handle: { fd: number } })._handle
  return {
    fd,
    received: () => Buffer.concat(pieces),
    close: () => {
      client.destroy()
      socket.destroy()
      server.close()
    },
  }
}

describe('sendNow', () => {
  test('sends exactly the bytes of a range from the page cache', async () => {
    await using bench = await Bench.open()
    await using store = await bench.store()
    const bytes = contentOf(2 * BLOCK_BYTES + 1000, 3)
    const blob = store.ensure(digestOf(bytes), { size: bytes.length })
    await put(
      blob,
      bytes,
      Array.from({ length: blockCount(bytes.length) }, (_, block) => block),
    )
    const line = await connection()
    assert.equal(blob.canSendNow(100, BLOCK_BYTES), true)
    const sent = blob.sendNow(line.fd, 100, 50_000)
    assert.equal(sent, 50_000)
    await until(() => line.received().length === sent)
    assert.ok(line.received().equals(bytes.subarray(100, 50_100)))
    line.close()
  })

  test('is not offered for blocks that are missing or were not checked in this run, nor beyond the blob', async () => {
    await using bench = await Bench.open()
    const bytes = contentOf(3 * BLOCK_BYTES, 4)
    {
      await using store = await bench.store()
      const blob = store.ensure(digestOf(bytes), { size: bytes.length })
      await put(blob, bytes, [0, 1])
      assert.equal(blob.canSendNow(0, 2 * BLOCK_BYTES), true)
      assert.equal(blob.canSendNow(BLOCK_BYTES, BLOCK_BYTES + 1), false)
      assert.equal(blob.canSendNow(2 * BLOCK_BYTES, 10), false)
      assert.equal(blob.canSendNow(0, bytes.length + 1), false)
    }
    await using store = await bench.store()
    const blob = store.find(digestOf(bytes))!
    assert.equal(blob.canSendNow(0, 10), false)
    await blob.read(0, 10)
    assert.equal(blob.canSendNow(0, 10), true)
  })

  test('a connection that is gone takes nothing, and says so', async () => {
    await using bench = await Bench.open()
    await using store = await bench.store()
    const bytes = contentOf(BLOCK_BYTES, 5)
    const blob = store.ensure(digestOf(bytes), { size: bytes.length })
    await put(blob, bytes, [0])
    assert.equal(blob.canSendNow(0, BLOCK_BYTES), true)
    assert.equal(blob.sendNow(1_000_000, 0, BLOCK_BYTES), 0)
  })
})
