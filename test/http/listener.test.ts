import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { describe, test } from 'node:test'
import { Listener, type ListenerOptions } from '../../src/http/index.ts'

const MIB = 1024 * 1024
/** Far longer than any of these takes. */
const LONG_MS = 20_000
const REQUEST = 'GET / HTTP/1.1\r\nHost: a.test\r\n\r\n'

const ok: RequestListener = (_request, response) => response.end('ok')

async function open(handler: RequestListener, options: Partial<ListenerOptions> = {}) {
  const listener = await Listener.open(handler, { address: { kind: 'tcp', host: '127.0.0.1', port: 0 }, ...options })
  const port = Number(new URL(`http://${listener.address}`).port)
  /** A connection on which `bytes` have been sent. */
  const connect = async (bytes = ''): Promise<net.Socket> => {
    const socket = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true })
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    socket.write(bytes)
    return socket
  }
  return { listener, connect, [Symbol.asyncDispose]: () => listener.close() }
}

/** A connection whose request has been answered. */
async function idle(connect: (bytes: string) => Promise<net.Socket>): Promise<net.Socket> {
  const socket = await connect(REQUEST)
  await once(socket, 'data')
  return socket
}

async function ended(socket: net.Socket): Promise<void> {
  socket.resume()
  await once(socket, 'end')
  socket.destroy()
}

describe('closing a listener', () => {
  test('an answer that a slow client has not read yet is not cut', async () => {
    const body = Buffer.alloc(16 * MIB)
    const answer: RequestListener = (request, response) => {
      if (request.url === '/') response.end('ok')
      else response.writeHead(200, { 'Content-Length': body.length }).end(body)
    }
    await using rig = await open(answer)
    const slow = await rig.connect(REQUEST.replace('/', '/slow'))
    await once(slow, 'readable')
    const other = await idle(rig.connect)
    const closed = rig.listener.close(LONG_MS)
    // Connections have been looked through then.
    await ended(other)
    let received = 0
    for await (const piece of slow as AsyncIterable<Buffer>) received += piece.length
    assert.ok(received > body.length, `${received}`)
    await closed
  })

  test('nobody waits for connections without a request', async () => {
    await using rig = await open(ok)
    const unused = await rig.connect()
    const used = await idle(rig.connect)
    await Promise.all([rig.listener.close(LONG_MS), ended(unused), ended(used)])
    assert.equal(rig.listener.connections, 0)
  })

  test('a tunnel lasts until the time is over', async () => {
    const onConnect: ListenerOptions['onConnect'] = (_request, socket) => {
      socket.on('data', (piece: Buffer) => socket.write(piece))
    }
    await using rig = await open(ok, { onConnect })
    const tunnel = await rig.connect('CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n')
    const other = await idle(rig.connect)
    const closed = rig.listener.close(LONG_MS)
    await ended(other)
    tunnel.write('still here')
    assert.equal(String((await once(tunnel, 'data'))[0]), 'still here')
    await rig.listener.close(0)
    await closed
    tunnel.destroy()
  })
})

test('a client that does not come to the end of its request is told so and cut', async () => {
  await using rig = await open(ok, { headTimeoutMs: 50 })
  for (const begun of ['', 'GET / HTTP/1.1\r\nHost: a.']) {
    const socket = await rig.connect(begun)
    const answer: Buffer[] = []
    for await (const piece of socket as AsyncIterable<Buffer>) answer.push(piece)
    assert.match(Buffer.concat(answer).toString(), /^HTTP\/1\.1 408 /)
  }
})

test('a socket whose process is gone is replaced, a file that is none is left alone', async () => {
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-listener-'))
  try {
    const file = path.join(directory, 'file')
    await fs.writeFile(file, 'precious')
    await assert.rejects(Listener.open(ok, { address: { kind: 'unix', path: file } }), { code: 'EADDRINUSE' })
    assert.equal(await fs.readFile(file, 'utf8'), 'precious')

    const socket = path.join(directory, 'socket')
    const dead = net.createServer().listen(path.join(directory, 'other'))
    await once(dead, 'listening')
    await fs.link(path.join(directory, 'other'), socket)
    dead.close()
    const listener = await Listener.open(ok, { address: { kind: 'unix', path: socket } })
    await assert.rejects(Listener.open(ok, { address: { kind: 'unix', path: socket } }), { code: 'EADDRINUSE' })
    await listener.close()
  } finally {
    await fs.rm(directory, { recursive: true, force: true })
  }
})
