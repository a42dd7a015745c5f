import koffi from 'koffi'
import { SystemError } from './system-error.ts'

/** System calls that Node does not offer. */
export interface Native {
  /**
   * Fills `target` from `position` if the page cache has all of it, without ever waiting for the disk. False: not all of it is in memory,
   * or this file system cannot tell.
   */
  readNow(fd: number, target: Uint8Array, position: number): boolean
  /**
   * Sends file bytes to a socket from the page cache, without copying them. Returns the bytes that the socket took, 0 when it takes none now
   * or is broken: the next ordinary write tells. Waits for the disk where the page cache has not got them.
   */
  sendFile(socket: number, fd: number, position: number, length: number): number
  /** Gives the bytes back to the file system; the file keeps its length and reads as zeros there. Throws a SystemError. */
  punchHole(fd: number, start: number, length: number): Promise<void>
  /** An advisory lock that ends with the process. False: somebody else has it. Throws a SystemError. */
  tryLock(fd: number): boolean
}

/** linux/fs.h */
const RWF_NOWAIT = 0x8
/** linux/falloc.h: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE */
const PUNCH_KEEP_SIZE = 0x3
/** sys/file.h: LOCK_EX | LOCK_NB */
const LOCK_EXCLUSIVE_NOW = 0x6

type Preadv2 = (fd: number, iov: Uint8Array, count: number, offset: number, flags: number) => number
type SendFile = (out: number, from: number, offset: Uint8Array, length: number) => number
type Flock = (fd: number, operation: number) => number
type Fallocate = (
  fd: number,
  mode: number,
  offset: number,
  length: number,
  done: (error: Error | null, result: number) => void,
) => void

export function openNative(): Native {
  const libc = koffi.load(null)
  const preadv2 = libc.func('int64_t preadv2(int fd, void *iov, int cnt, int64_t off, int flags)') as Preadv2
  const sendfile = libc.func('int64_t sendfile(int out, int in, void *offset, size_t length)') as SendFile
  const flock = libc.func('int flock(int fd, int operation)') as Flock
  const fallocate = libc.func('int fallocate(int fd, int mode, int64_t off, int64_t len)').async as Fallocate
  // struct iovec { void *base; size_t length }: one is enough, because the call is over before anyone else can run.
  const iov = new BigUint64Array(2)
  const iovBytes = new Uint8Array(iov.buffer)
  const offset = new BigInt64Array(1)
  const offsetBytes = new Uint8Array(offset.buffer)
  return {
    readNow: (fd, target, position) => {
      if (target.byteLength === 0) return true
      iov[0] = koffi.address(target)
      iov[1] = BigInt(target.byteLength)
      return preadv2(fd, iovBytes, 1, position, RWF_NOWAIT) === target.byteLength
    },
    sendFile: (socket, fd, position, length) => {
      offset[0] = BigInt(position)
      return Math.max(0, sendfile(socket, fd, offsetBytes, length))
    },
    punchHole: (fd, start, length) =>
      new Promise((resolve, reject) => {
        fallocate(fd, PUNCH_KEEP_SIZE, start, length, (error, result) => {
          if (error !== null) reject(error)
          else if (result !== 0) reject(new SystemError('fallocate', errnoName(koffi.errno())))
          else resolve()
        })
      }),
    tryLock: fd => {
      if (flock(fd, LOCK_EXCLUSIVE_NOW) === 0) return true
      const code = errnoName(koffi.errno())
      if (code === 'EAGAIN' || code === 'EWOULDBLOCK') return false
      throw new SystemError('flock', code)
    },
  }
}

function errnoName(errno: number): string {
  const found = Object.entries(koffi.os.errno).find(([, value]) => value === errno)
  return found?.[0] ?? `errno ${errno}`
}
