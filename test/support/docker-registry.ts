import { createReadStream } from 'node:fs'
import fs from 'node:fs/promises'
import http from 'node:http'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { Agent, request as send } from 'undici'
import { writeHtpasswd, type Credentials } from './htpasswd.ts'
import { Child, freePort, temporaryDirectory, type TemporaryDirectory } from './processes.ts'
import { copyImage } from './skopeo.ts'

export interface DockerRegistryOptions {
  /** Asked of every client. Needs htpasswd. */
  readonly credentials?: Credentials
  /** PEM files. */
  readonly tls?: { readonly certificate: string; readonly key: string }
  /** For requests(). */
  readonly accessLog?: boolean
}

/** Debian's docker-registry over a temporary directory, on one port for as long as it is used, so that it can be stopped and come back. */
export class DockerRegistry implements AsyncDisposable {
  readonly port: number
  /** host:port, as an image name has it. */
  readonly host: string
  readonly url: string
  readonly #directory: TemporaryDirectory
  readonly #credentials: Credentials | undefined
  #child: Child | undefined
  #marks = 0

  private constructor(directory: TemporaryDirectory, port: number, options: DockerRegistryOptions) {
    this.#directory = directory
    this.#credentials = options.credentials
    this.port = port
    this.host = `127.0.0.1:${port}`
    this.url = `${options.tls === undefined ? 'http' : 'https'}://${this.host}`
  }

  static async start(options: DockerRegistryOptions = {}): Promise<DockerRegistry> {
    const directory = await temporaryDirectory('shoal-registry')
    const registry = new DockerRegistry(directory, await freePort(), options)
    try {
      await registry.#configure(options)
      await registry.restart()
    } catch (error: unknown) {
      await registry[Symbol.asyncDispose]()
      throw error
    }
    return registry
  }

  /** Throws while it is stopped. */
  get pid(): number {
    if (this.#child === undefined) throw new Error('the registry is stopped')
    return this.#child.pid
  }

  /** Copies one tag of an OCI layout, bytes unchanged. Needs skopeo. */
  async push(image: { layout: string; tag: string; repository: string }): Promise<void> {
    await copyImage({
      from: `oci:${image.layout}:${image.tag}`,
      to: `docker://${this.host}/${image.repository}:${image.tag}`,
      ...(this.#credentials === undefined ? {} : { toCredentials: this.#credentials }),
    })
  }

  /** Uploads one file as a blob, without any image around it. For a registry without credentials and TLS. */
  async uploadBlob(blob: { file: string; digest: string; repository: string }): Promise<void> {
    const start = await fetch(`${this.url}/v2/${blob.repository}/blobs/uploads/`, { method: 'POST' })
    await start.arrayBuffer()
    const location = new URL(start.headers.get('location') ?? '', this.url)
    location.searchParams.set('digest', blob.digest)
    const { size } = await fs.stat(blob.file)
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const headers = { 'content-length': size, 'content-type': 'application/octet-stream' }
      const request = http.request(location, { method: 'PUT', headers }, response => {
        response.resume().once('end', () => resolve(response.statusCode))
      })
      pipeline(createReadStream(blob.file, { highWaterMark: 1024 * 1024 }), request).catch(reject)
    })
    if (status !== 201) throw new Error(`the registry answered ${String(status)} to the upload of ${blob.digest}`)
  }

  /** What it has been asked since it was started last: `GET /v2/name/blobs/sha256:... 200`. Of one with an access log. */
  async requests(): Promise<string[]> {
    if (this.#child === undefined) throw new Error('the registry is stopped')
    const mark = `mark=${(this.#marks += 1)}`
    const dispatcher = new Agent({ connect: { rejectUnauthorized: false } })
    const { body } = await send(`${this.url}/v2/?${mark}`, { dispatcher })
    await body.dump()
    await dispatcher.close()
    // A line is written after its answer.
    await this.#child.waitForLine(line => (line.includes(`${mark} `) ? true : undefined))
    return this.#child.lines
      .map(line => /"([A-Z]+ \S+) HTTP\/[0-9.]+" (\d+) /.exec(line))
      .filter(match => match !== null)
      .map(([, asked, status]) => `${asked} ${status}`)
      .filter(line => !line.includes('/v2/?mark='))
  }

  /** Ends the process; the images and the port stay. */
  async stop(): Promise<void> {
    await this.#child?.stop()
    this.#child = undefined
  }

  async restart(): Promise<void> {
    await this.stop()
    this.#child = await Child.start('docker-registry', ['serve', this.#file('config.yml')], {
      cwd: this.#directory.path,
    })
    await this.#child.waitForPort(this.port)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    await this.#directory[Symbol.asyncDispose]()
  }

  #file(name: string): string {
    return path.join(this.#directory.path, name)
  }

  async #configure(options: DockerRegistryOptions): Promise<void> {
    const { accessLog = false, credentials, tls } = options
    if (credentials !== undefined) await writeHtpasswd(this.#file('htpasswd'), credentials)
    const config = {
      version: '0.1',
      log: { level: 'error', accesslog: { disabled: !accessLog } },
      storage: { filesystem: { rootdirectory: this.#file('data') }, cache: { blobdescriptor: 'inmemory' } },
      http: {
        addr: this.host,
        secret: 'signs upload sessions only',
        ...(tls === undefined ? {} : { tls: { certificate: tls.certificate, key: tls.key } }),
      },
      ...(credentials === undefined ? {} : { auth: { htpasswd: { realm: 'test', path: this.#file('htpasswd') } } }),
    }
    // JSON is YAML.
    await fs.writeFile(this.#file('config.yml'), JSON.stringify(config))
  }
}
