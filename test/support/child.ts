import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { systemCode } from '../../src/core/index.ts'
import { findTool, findToolOrThrow } from './tools.ts'

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

/** Runs a command to its end. Throws with its stderr when it fails or takes longer than `timeoutMs` (60 s). */
export async function run(
  tool: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const file = await findToolOrThrow(tool)
  return new Promise((resolve, reject) => {
    const settings = {
      env: options.env ?? process.env,
      timeout: options.timeoutMs ?? 60_000,
      killSignal: 'SIGKILL' as const,
      maxBuffer: 64 * 1024 * 1024,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    }
    execFile(file, args, settings, (error, stdout, stderr) => {
      if (error === null) resolve({ stdout, stderr })
      else reject(new Error(`${tool} ${args[0] ?? ''} failed: ${stderr.trim()}`, { cause: error }))
    })
  })
}

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface ChildOptions {
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
  /** What the kernel sends the child when this process dies. TERM for one that has children of its own to stop. */
  readonly deathSignal?: 'KILL' | 'TERM'
}

/**
 * A server in a process group of its own, its output kept line by line. It cannot outlive this process: the kernel ends it when we die
 * (setpriv), and an exit hook does where setpriv is missing.
 */
export class Child implements AsyncDisposable {
  readonly name: string
  readonly pid: number
  readonly exited: Promise<Exit>
  /** stdout and stderr, in order of arrival. */
  readonly lines: readonly string[]
  readonly #events = new EventEmitter()
  readonly #closed: Promise<void>
  #exit: Exit | undefined
  #outputEnded = false

  private constructor(name: string, child: ChildProcess, pid: number) {
    const lines: string[] = []
    this.name = name
    this.pid = pid
    this.lines = lines
    for (const stream of [child.stdout, child.stderr]) {
      if (stream === null) continue
      readline.createInterface({ input: stream, crlfDelay: Infinity }).on('line', line => {
        lines.push(line)
        this.#events.emit('change')
      })
    }
    const onProcessExit = (): void => this.kill('SIGKILL')
    process.on('exit', onProcessExit)
    this.exited = new Promise(resolve => {
      child.once('exit', (code, signal) => {
        process.off('exit', onProcessExit)
        this.#exit = { code, signal }
        resolve(this.#exit)
      })
    })
    // 'close' comes after 'exit' and after the last line.
    this.#closed = new Promise(resolve => {
      child.once('close', () => {
        this.#outputEnded = true
        this.#events.emit('change')
        resolve()
      })
    })
  }

  static async start(command: string, args: readonly string[], options: ChildOptions = {}): Promise<Child> {
    const setpriv = await findTool('setpriv')
    const file = path.isAbsolute(command) ? command : await findToolOrThrow(command)
    const [first = file, ...rest] = [
      ...(setpriv === undefined ? [] : [setpriv, '--pdeathsig', options.deathSignal ?? 'KILL', '--']),
      file,
      ...args,
    ]
    const child = spawn(first, rest, {
      cwd: options.cwd ?? os.tmpdir(),
      env: options.env ?? process.env,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    await once(child, 'spawn')
    if (child.pid === undefined) throw new Error(`${command} did not start`)
    return new Child(path.basename(command), child, child.pid)
  }

  get running(): boolean {
    return this.#exit === undefined
  }

  /** The first line, past ones included, for which `match` returns something. Rejects when the child ends first, or after `timeoutMs`. */
  async waitForLine<T>(match: (line: string) => T | undefined, options: { timeoutMs?: number } = {}): Promise<T> {
    const deadline = AbortSignal.timeout(options.timeoutMs ?? 20_000)
    let seen = 0
    for (;;) {
      for (; seen < this.lines.length; seen += 1) {
        const found = match(this.lines[seen] ?? '')
        if (found !== undefined) return found
      }
      if (this.#outputEnded) throw new Error(this.describe('ended early'))
      try {
        await once(this.#events, 'change', { signal: deadline })
      } catch (cause: unknown) {
        throw new Error(this.describe('did not say in time what was waited for'), { cause })
      }
    }
  }

  /** Resolves when something accepts connections on 127.0.0.1:port. */
  async waitForPort(port: number, options: { timeoutMs?: number } = {}): Promise<void> {
    const deadline = Date.now() + (options.timeoutMs ?? 20_000)
    while (!(await canConnect(port))) {
      if (!this.running) throw new Error(this.describe('ended early'))
      if (Date.now() > deadline) throw new Error(this.describe(`did not listen on port ${port} in time`))
      await delay(20)
    }
  }

  /** To the whole process group. Nothing happens when it has ended. */
  kill(signal: NodeJS.Signals): void {
    if (!this.running) return
    try {
      process.kill(-this.pid, signal)
    } catch (error: unknown) {
      if (systemCode(error) !== 'ESRCH') throw error
    }
  }

  /** SIGTERM, and SIGKILL to what is left after `graceMs`. Repeatable. */
  async stop(options: { graceMs?: number } = {}): Promise<Exit> {
    this.kill('SIGTERM')
    const timer = setTimeout(() => this.kill('SIGKILL'), options.graceMs ?? 20_000)
    try {
      return await this.exited
    } finally {
      clearTimeout(timer)
      await this.#closed
    }
  }

  /** What went wrong, with the last lines that the child said. */
  describe(problem: string): string {
    return [`${this.name} (pid ${this.pid}) ${problem}`, ...this.lines.slice(-20)].join('\n  ')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

function canConnect(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = net.connect(port, '127.0.0.1')
    const finish = (answer: boolean): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => finish(true)).once('error', () => finish(false))
  })
}
