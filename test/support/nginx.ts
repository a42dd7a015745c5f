import fs from 'node:fs/promises'
import path from 'node:path'
import { Child, freePort, temporaryDirectory, type TemporaryDirectory } from './processes.ts'

export interface NginxOptions {
  /** Directives of the one server, besides `listen`. Relative paths are below a temporary directory. */
  readonly server: string
  /** More directives for all of http. */
  readonly http?: string
}

/** One request that nginx has answered, or has seen its client leave. */
export interface NginxRequest {
  /** When it ended, in milliseconds since 1970. */
  readonly endedAt: number
  readonly method: string
  /** 499: the client left first. */
  readonly status: number
  readonly path: string
}

const LOG = 'requests.log'

/**
 * nginx with one worker, on one port of 127.0.0.1 for as long as it is used, so that it can be stopped, killed or made to hang, and come
 * back.
 */
export class Nginx implements AsyncDisposable {
  /** 127.0.0.1:port. */
  readonly host: string
  readonly url: string
  readonly #port: number
  readonly #directory: TemporaryDirectory
  #child: Child | undefined

  private constructor(directory: TemporaryDirectory, port: number) {
    this.#directory = directory
    this.#port = port
    this.host = `127.0.0.1:${port}`
    this.url = `http://${this.host}`
  }

  static async start(options: NginxOptions): Promise<Nginx> {
    const directory = await temporaryDirectory('shoal-nginx')
    const nginx = new Nginx(directory, await freePort())
    try {
      await fs.writeFile(path.join(directory.path, 'nginx.conf'), configuration(nginx.host, options))
      await nginx.restart()
    } catch (error: unknown) {
      await nginx[Symbol.asyncDispose]()
      throw error
    }
    return nginx
  }

  /** The master; its children are the worker and what else there is. Throws while it is stopped. */
  get pid(): number {
    if (this.#child === undefined) throw new Error('nginx is stopped')
    return this.#child.pid
  }

  /** Master and worker end at once, every connection with them; by SIGKILL they do not even hear of it. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    this.resume()
    this.#child?.kill(signal)
    await this.#child?.stop()
    this.#child = undefined
  }

  async restart(): Promise<void> {
    await this.stop()
    const directory = this.#directory.path
    const args = ['-p', directory, '-c', path.join(directory, 'nginx.conf'), '-e', 'stderr']
    this.#child = await Child.start('nginx', args, { deathSignal: 'TERM' })
    await this.#child.waitForPort(this.#port)
  }

  /** Master and worker hang: the kernel goes on accepting connections, and nobody answers on them. */
  hang(): void {
    this.#child?.kill('SIGSTOP')
  }

  /** After hang(). */
  resume(): void {
    this.#child?.kill('SIGCONT')
  }

  /** Of every run, in the order in which they ended. What was under way when nginx was killed is not among them. */
  async requests(): Promise<readonly NginxRequest[]> {
    const text = await fs.readFile(path.join(this.#directory.path, LOG), 'utf8')
    return text
      .split('\n')
      .filter(line => line !== '')
      .map(parseLine)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    await this.#directory[Symbol.asyncDispose]()
  }
}

function parseLine(line: string): NginxRequest {
  const [seconds, status, method = '', requested = ''] = line.split(' ')
  return { endedAt: Number(seconds) * 1000, status: Number(status), method, path: requested }
}

function configuration(host: string, { server, http = '' }: NginxOptions): string {
  const temporary = ['client_body', 'fastcgi', 'proxy', 'scgi', 'uwsgi']
  return `
daemon off;
worker_processes 1;
${process.getuid?.() === 0 ? 'user root;' : ''}
pid nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
http {
  log_format seen '$msec $status $request_method $request_uri';
  access_log ${LOG} seen;
  sendfile on;
  keepalive_requests 1000000000;
  ${temporary.map(name => `${name}_temp_path ${name};`).join('\n  ')}
  ${http}
  server {
    listen ${host};
    ${server}
  }
}
`
}
