import net from 'node:net'

/** Bytes taken from the socket at once. One buffer is filled again and again, so that the client costs as little as it can. */
const BUFFER_BYTES = 256 * 1024
const HEAD_END = '\r\n\r\n'

export interface TimedAnswer {
  /** From before the connection was opened to the first byte of the body. */
  readonly firstByteMs: number
  readonly totalMs: number
  readonly head: string
}

export interface TimedGetOptions {
  /** The request target, where it is not the path of the URL: an absolute URL asks a forward proxy. */
  readonly target?: string
  /** Offset of the first of `size` bytes. Default: the whole blob is asked for. */
  readonly start?: number
  /** Called with the first byte of the body. */
  readonly onBody?: () => void
}

/**
 * One GET over a new connection, the body thrown away. Throws when the answer is not a 200, or for a range a 206, of exactly `size` bytes,
 * and when nothing comes for a minute.
 */
export function timedGet(url: string, size: number, options: TimedGetOptions = {}): Promise<TimedAnswer> {
  const { hostname, port, pathname, search, host } = new URL(url)
  const { onBody, start, target = `${pathname}${search}` } = options
  const expected = start === undefined ? '200' : '206'
  const lines = [
    `GET ${target} HTTP/1.1`,
    `Host: ${target.startsWith('/') ? host : new URL(target).host}`,
    'Accept: */*',
    'Connection: close',
    ...(start === undefined ? [] : [`Range: bytes=${start}-${start + size - 1}`]),
  ]
  return new Promise((resolve, reject) => {
    const started = performance.now()
    let head: string | undefined
    let beginning = ''
    let firstByteMs: number | undefined
    let received = 0
    const take = (length: number, piece: Uint8Array): boolean => {
      let body = length
      if (head === undefined) {
        beginning += Buffer.from(piece.buffer, piece.byteOffset, length).toString('latin1')
        const end = beginning.indexOf(HEAD_END)
        if (end < 0) return true
        head = beginning.slice(0, end)
        body = beginning.length - end - HEAD_END.length
      }
      if (body > 0 && firstByteMs === undefined) {
        firstByteMs = performance.now() - started
        onBody?.()
      }
      received += body
      if (received >= size) finish()
      return true
    }
    const socket = net.connect({
      host: hostname,
      port: Number(port),
      onread: { buffer: Buffer.allocUnsafe(BUFFER_BYTES), callback: take },
    })
    const fail = (problem: string, cause?: unknown): void => {
      socket.destroy()
      const [status = ''] = (head ?? '').split('\r\n')
      reject(new Error(`${host}: ${problem} after ${received} of ${size} bytes (${status})`, { cause }))
    }
    const finish = (): void => {
      const totalMs = performance.now() - started
      const status = /^HTTP\/1\.1 (\d{3})/.exec(head ?? '')?.[1]
      const length = /^content-length: *(\d+)$/im.exec(head ?? '')?.[1]
      if (status !== expected || Number(length) !== size || received !== size) {
        fail(`status ${String(status)}, content-length ${String(length)}`)
        return
      }
      socket.destroy()
      resolve({ firstByteMs: firstByteMs ?? totalMs, totalMs, head: head ?? '' })
    }
    socket.setTimeout(60_000, () => fail('silence'))
    socket.on('error', error => fail('connection broken', error))
    socket.on('close', () => fail('connection closed'))
    socket.write(`${lines.join('\r\n')}\r\n\r\n`)
  })
}

/** The value of a header in `head`, or undefined. */
export function headerOf(head: string, name: string): string | undefined {
  const prefix = `${name.toLowerCase()}:`
  const line = head.split('\r\n').find(text => text.toLowerCase().startsWith(prefix))
  return line?.slice(prefix.length).trim()
}
