import { Worker } from 'node:worker_threads'
import type { DigestAlgorithm } from '../core/index.ts'
import type { DiskAnswer, DiskJob, DiskWorkerData } from './disk-worker.ts'
import { SystemError } from './system-error.ts'

interface Waiter {
  readonly resolve: (hex: string) => void
  readonly reject: (error: Error) => void
}

type Request = DiskJob extends infer Job ? (Job extends DiskJob ? Omit<Job, 'id'> : never) : never

/**
 * One worker thread, started when first needed and again after it died. Jobs run one after the other, in the order asked. After close()
 * every job is refused.
 */
export class DiskThread implements AsyncDisposable {
  readonly #stop = new SharedArrayBuffer(4)
  readonly #waiters = new Map<number, Waiter>()
  #worker: Worker | undefined
  #closed = false
  #lastId = 0

  /** The hash of a file's first `size` bytes, in hex. `fd` must stay open until it resolves. Throws a SystemError. */
  hash(fd: number, size: number, algorithm: DigestAlgorithm): Promise<string> {
    return this.#ask({ kind: 'hash', fd, size, algorithm })
  }

  /** Resolves when what was written to the file is on the disk. `fd` must stay open until then. Throws a SystemError. */
  async sync(fd: number): Promise<void> {
    await this.#ask({ kind: 'sync', fd })
  }

  /** Moves what is in the write-ahead log into the database, over a connection of its own. Throws a SystemError. */
  async checkpoint(file: string): Promise<void> {
    await this.#ask({ kind: 'checkpoint', file })
  }

  /** Stops a running hash at its next piece, waits for any other job that runs, and waits for the thread to end. Unfinished jobs are rejected. */
  async close(): Promise<void> {
    this.#closed = true
    Atomics.store(new Int32Array(this.#stop), 0, 1)
    // The running job holds a descriptor that its caller closes next, so it must have ended.
    await Promise.allSettled(
      [...this.#waiters.keys()].slice(0, 1).map(id => new Promise(resolve => this.#onSettled(id, resolve))),
    )
    await this.#worker?.terminate()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #onSettled(id: number, settled: (value: undefined) => void): void {
    const waiter = this.#waiters.get(id)
    if (waiter === undefined) return
    this.#waiters.set(id, {
      resolve: hex => {
        waiter.resolve(hex)
        settled(undefined)
      },
      reject: error => {
        waiter.reject(error)
        settled(undefined)
      },
    })
  }

  #ask(request: Request): Promise<string> {
    if (this.#closed) return Promise.reject(new SystemError('worker', 'ECANCELED'))
    const worker = (this.#worker ??= this.#start())
    const id = (this.#lastId += 1)
    return new Promise((resolve, reject) => {
      this.#waiters.set(id, { resolve, reject })
      worker.postMessage({ ...request, id } satisfies DiskJob)
    })
  }

  #start(): Worker {
    const workerData: DiskWorkerData = { stop: this.#stop }
    const worker = new Worker(new URL('./disk-worker.js', import.meta.url), { name: 'shoal-disk', workerData })
    worker.on('message', (answer: DiskAnswer) => this.#settle(answer))
    worker.on('error', error => this.#lost(worker, error))
    worker.on('exit', code => this.#lost(worker, new Error(`the disk thread ended with ${code}`)))
    return worker
  }

  #settle(answer: DiskAnswer): void {
    const waiter = this.#waiters.get(answer.id)
    this.#waiters.delete(answer.id)
    if ('hex' in answer) waiter?.resolve(answer.hex)
    else waiter?.reject(Object.assign(new SystemError('worker', answer.code), { message: answer.message }))
  }

  #lost(worker: Worker, error: Error): void {
    if (this.#worker !== worker) return
    this.#worker = undefined
    const waiters = [...this.#waiters.values()]
    this.#waiters.clear()
    const reason = this.#closed ? new SystemError('worker', 'ECANCELED') : error
    for (const waiter of waiters) waiter.reject(reason)
  }
}
