import fs from 'node:fs/promises'
import path from 'node:path'
import { Child, freePort, temporaryDirectory, type TemporaryDirectory } from '../test/support/processes.ts'

/**
 * nginx with one worker, caching slices of what is behind it, as its documentation of the slice module shows it. Without tcp_nopush, which
 * costs it dearly here: with it the last segment of an answer made of slices waits for the client's delayed acknowledgement (40 ms).
 */
export class Nginx implements AsyncDisposable {
  readonly url: string
  readonly #child: Child
  readonly #directory: TemporaryDirectory

  private constructor(directory: TemporaryDirectory, child: Child, port: number) {
    this.#directory = directory
    this.#child = child
    this.url = `http://127.0.0.1:${port}`
  }

  static async start(origin: string): Promise<Nginx> {
    const directory = await temporaryDirectory('shoal-nginx')
    let child: Child | undefined
    try {
      const port = await freePort()
      const config = path.join(directory.path, 'nginx.conf')
      await fs.writeFile(config, configuration(directory.path, port, origin))
      const args = ['-p', directory.path, '-c', config, '-e', 'stderr']
      child = await Child.start('nginx', args, { deathSignal: 'TERM' })
      await child.waitForPort(port)
      return new Nginx(directory, child, port)
    } catch (error: unknown) {
      await child?.stop()
      await directory[Symbol.asyncDispose]()
      throw error
    }
  }

  /** The master; its children are the worker and the cache manager. */
  get pid(): number {
    return this.#child.pid
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.stop()
    await this.#directory[Symbol.asyncDispose]()
  }
}

function configuration(directory: string, port: number, origin: string): string {
  const temporary = ['client_body', 'fastcgi', 'proxy', 'scgi', 'uwsgi']
  return `
daemon off;
worker_processes 1;
${process.getuid?.() === 0 ? 'user root;' : ''}
pid ${directory}/nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
http {
  access_log off;
  sendfile on;
  keepalive_requests 1000000000;
  open_file_cache max=4096 inactive=1h;
  ${temporary.map(name => `${name}_temp_path ${directory}/${name};`).join('\n  ')}
  proxy_cache_path ${directory}/cache levels=1:2 keys_zone=blobs:16m max_size=8g inactive=1d use_temp_path=off;
  server {
    listen 127.0.0.1:${port};
    location / {
      slice 1m;
      proxy_cache blobs;
      proxy_cache_key $uri$slice_range;
      proxy_cache_valid 200 206 1d;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Range $slice_range;
      add_header X-Cache $upstream_cache_status;
      proxy_pass ${origin};
    }
  }
}
`
}
