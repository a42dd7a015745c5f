// A registry far away, in a process of its own: node distant-origin.js DELAY_MS BYTES_PER_SECOND FILE...
// Serves files named by their digests, DELAY_MS late, at BYTES_PER_SECOND on each connection. Says "listening <port>".
import fs from 'node:fs/promises'
import http from 'node:http'
import type { Socket } from 'node:net'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { formatContentRange, parseRangeHeader, resolveRange, type ByteRange } from '../src/core/index.ts'

const PIECE_BYTES = 64 * 1024
/** Read from a file at once. Not all of it: the kernel closes a killed process's connections only after having freed its memory. */
const READ_BYTES = 1024 * 1024
/** A connection that was late, as timers are, may catch up this much and no more. */
const CATCH_UP_MS = 5

const [delayMs, bytesPerSecond, ...files] = process.argv.slice(2)
const contents = new Map<string, { readonly handle: fs.FileHandle; readonly size: number }>()
for (const file of files) {
  const handle = await fs.open(file)
  contents.set(path.basename(file), { handle, size: (await handle.stat()).size })
}
const bytesPerMs = Number(bytesPerSecond) / 1000
/** When the last byte given to a connection will have left. */
const busyUntil = new WeakMap<Socket, number>()

const server = http.createServer((request, response) => {
  answer(request, response).catch(() => response.destroy())
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  process.stdout.write(`listening ${typeof address === 'object' ? String(address?.port) : ''}\n`)
})

async function answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
  await delay(Number(delayMs))
  const { pathname } = new URL(request.url ?? '/', 'http://origin')
  if (pathname === '/v2/') {
    response.end('{}')
    return
  }
  const digest = path.posix.basename(pathname)
  const content = contents.get(digest)
  if (content === undefined) {
    response.writeHead(404, { 'content-type': 'application/json' })
    response.end('{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}')
    return
  }
  const specs = parseRangeHeader(request.headers.range)
  const range = specs?.[0] === undefined ? undefined : resolveRange(specs[0], content.size)
  const sent = range ?? { start: 0, end: content.size }
  response.writeHead(range === undefined ? 200 : 206, {
    'accept-ranges': 'bytes',
    'content-length': sent.end - sent.start,
    'content-type': 'application/octet-stream',
    'docker-content-digest': digest,
    ...(range === undefined ? {} : { 'content-range': formatContentRange(range, content.size) }),
  })
  if (request.method === 'HEAD') response.end()
  else await pipeline(paced(content.handle, sent, request.socket), response)
}

/** The bytes, each piece when a connection of that speed would have brought it. */
async function* paced(handle: fs.FileHandle, range: ByteRange, socket: Socket): AsyncGenerator<Uint8Array> {
  for await (const piece of piecesOf(handle, range)) {
    const now = performance.now()
    const leaves = Math.max(busyUntil.get(socket) ?? 0, now - CATCH_UP_MS) + piece.length / bytesPerMs
    busyUntil.set(socket, leaves)
    if (leaves - now >= 1) await delay(leaves - now)
    yield piece
  }
}

async function* piecesOf(handle: fs.FileHandle, { start, end }: ByteRange): AsyncGenerator<Uint8Array> {
  for (let offset = start; offset < end;) {
    const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, end - offset))
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, offset)
    if (bytesRead === 0) throw new Error('a file has become shorter')
    for (let at = 0; at < bytesRead; at += PIECE_BYTES) yield buffer.subarray(at, Math.min(at + PIECE_BYTES, bytesRead))
    offset += bytesRead
  }
}
