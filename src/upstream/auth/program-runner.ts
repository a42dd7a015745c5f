import { spawn, type ChildProcess, type ChildProcessByStdio } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { Limiter, ShoalError, systemCode } from '../../core/index.ts'

/**
 * Processes of one program at one time; a burst of images of many registries must not become a burst of processes. One that hangs keeps
 * nobody from another.
 */
const MAX_PROCESSES = 4
/** Of what a program prints. Real answers have 1 to 5 KB. */
const MAX_OUTPUT_BYTES = 64 * 1024
/** Of what it says on stderr; one line of that is looked at. */
const MAX_STDERR_LENGTH = 1024
const MAX_LINE_LENGTH = 160

/** Whether a configuration may name a program so: nothing that leads out of the directory where such programs are. */
export function isProgramName(name: string): boolean {
  return /^[a-zA-Z0-9._-]+$/.test(name) && name !== '.' && name !== '..'
}

export interface Program {
  /** A path, or a name that is looked up in PATH. */
  readonly file: string
  readonly args: readonly string[]
  /** Laid over the runner's own. */
  readonly env?: Readonly<Record<string, string>>
  /** Its stdin. */
  readonly input: string
}

export interface ProgramExit {
  readonly kind: 'exited'
  readonly code: number
  readonly stdout: string
  /** The first line of stderr, as it may be logged; '' when there is none. */
  readonly said: string
}

export type ProgramResult =
  | ProgramExit
  /** It did not start, did not end in time, was killed or printed too much; for a log line. */
  | { readonly kind: 'failed'; readonly why: string }

/**
 * Runs credential helpers: without a shell, a few at a time, each in a process group of its own that is killed when its time is up. Nobody
 * who waits for one can end it early: what a helper that hangs has cost is to be remembered, by its end.
 */
export class ProgramRunner {
  readonly #env: NodeJS.ProcessEnv
  readonly #timeoutMs: number
  /** By program: as many as the configuration names. */
  readonly #limiters = new Map<string, Limiter>()
  readonly #closing = new AbortController()
  readonly #running = new Set<Promise<unknown>>()

  constructor(deps: { readonly env: NodeJS.ProcessEnv }, options: { readonly timeoutMs: number }) {
    this.#env = deps.env
    this.#timeoutMs = options.timeoutMs
  }

  get closed(): boolean {
    return this.#closing.signal.aborted
  }

  /** Throws ERR_CLOSED. */
  async run(program: Program): Promise<ProgramResult> {
    const { signal } = this.#closing
    const release = await this.#limiterOf(program.file).acquire(1, { signal })
    const run = execute({ ...program, env: { ...this.#env, ...program.env } }, { signal, timeoutMs: this.#timeoutMs })
    this.#running.add(run)
    try {
      return await run
    } finally {
      this.#running.delete(run)
      release()
    }
  }

  #limiterOf(file: string): Limiter {
    const limiter = this.#limiters.get(file) ?? new Limiter(MAX_PROCESSES)
    this.#limiters.set(file, limiter)
    return limiter
  }

  /** Kills what runs and waits for its end. Repeatable. */
  async close(): Promise<void> {
    this.#closing.abort(new ShoalError('ERR_CLOSED', 'the keychain is closed'))
    await Promise.allSettled(this.#running)
  }
}

/** For a log line. */
export function exitOf({ code, said }: ProgramExit): string {
  return said === '' ? `exit code ${code}` : `exit code ${code}: ${said}`
}

function execute(
  { file, args, env, input }: Omit<Program, 'env'> & { readonly env: NodeJS.ProcessEnv },
  { signal, timeoutMs }: { readonly signal: AbortSignal; readonly timeoutMs: number },
): Promise<ProgramResult> {
  let child: ChildProcessByStdio<Writable, Readable, Readable>
  try {
    child = spawn(file, [...args], { env, stdio: ['pipe', 'pipe', 'pipe'], detached: true })
  } catch (error: unknown) {
    return Promise.resolve({ kind: 'failed', why: notStarted(error) })
  }
  return new Promise((resolve, reject) => {
    const stdout: Buffer[] = []
    let length = 0
    let stderr = ''

    const leave = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
    }
    const fail = (why: string): void => {
      leave()
      kill(child)
      resolve({ kind: 'failed', why })
    }
    const onAbort = (): void => {
      leave()
      kill(child)
      reject(signal.reason as Error)
    }
    const timer = setTimeout(() => fail(`did not end within ${timeoutMs} ms`), timeoutMs)
    signal.addEventListener('abort', onAbort)

    child.on('error', (error: unknown) => fail(notStarted(error)))
    child.stdout.on('data', (piece: Buffer) => {
      stdout.push(piece)
      length += piece.length
      if (length > MAX_OUTPUT_BYTES) fail(`printed more than ${MAX_OUTPUT_BYTES} bytes`)
    })
    child.stderr.on('data', (piece: Buffer) => {
      stderr = (stderr + piece.toString('utf8')).slice(0, MAX_STDERR_LENGTH)
    })
    // A program that does not care for its input may end before it has been written.
    child.stdin.on('error', () => undefined).end(input)
    child.on('close', (code, killedBy) => {
      leave()
      if (code === null) resolve({ kind: 'failed', why: `was ended by ${killedBy ?? 'a signal'}` })
      else resolve({ kind: 'exited', code, stdout: Buffer.concat(stdout).toString('utf8'), said: sayable(stderr) })
    })
  })
}

function notStarted(error: unknown): string {
  return `could not be started (${systemCode(error) ?? 'unknown'})`
}

/** The whole process group, and the pipes: a grandchild that has left the group may still hold them open. */
function kill(child: ChildProcess): void {
  for (const stream of child.stdio) stream?.destroy()
  if (child.pid === undefined) return
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch (error: unknown) {
    // It has ended, or runs with another user's rights and is beyond ours; the pipes to it are closed in any case.
    if (systemCode(error) !== 'ESRCH' && systemCode(error) !== 'EPERM') throw error
  }
}

/**
 * The first line of what a program complains of, without anything that could be a secret: what follows a word for one, the user and the
 * query of a URL, and every long word that is no path.
 */
export function sayable(text: string): string {
  const line = text.trim().split(/[\r\n]/, 1)[0] ?? ''
  return line
    .trim()
    .replace(/(:\/\/)[^\s/@]*@/g, '$1')
    .replace(/\?[^\s"']*/g, '?…')
    .replace(/[^\x20-\x7e…]/g, '?')
    .replace(/\b(pass\w*|secret\w*|\w*token\w*|\w*key|auth\w*|credentials?)(["']?\s*[:=]).*$/i, '$1$2 …')
    .replace(/\b(pass\w*|secret\w*|\w*token\w*|bearer|basic)\s+\S+/gi, '$1 …')
    .replace(/[\w+=.~-]{20,}/g, '…')
    .slice(0, MAX_LINE_LENGTH)
}
