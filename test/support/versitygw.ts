import { Sha256 } from '@aws-crypto/sha256-js'
import { SignatureV4 } from '@smithy/signature-v4'
import { Child, freePort, temporaryDirectory, type TemporaryDirectory } from './processes.ts'

/** versitygw, a server of S3 over a temporary directory. */
export class Versitygw implements AsyncDisposable {
  readonly url: string
  readonly region = 'eu-test-1'
  readonly keys = { accessKeyId: 'AKIDOFTHESERVER', secretAccessKey: 'the-secret/key+of-the-server' }
  readonly #directory: TemporaryDirectory
  #child: Child | undefined

  private constructor(directory: TemporaryDirectory, url: string) {
    this.#directory = directory
    this.url = url
  }

  static async start(): Promise<Versitygw> {
    const directory = await temporaryDirectory('shoal-versitygw')
    const port = await freePort()
    const server = new Versitygw(directory, `http://127.0.0.1:${port}`)
    try {
      const { accessKeyId, secretAccessKey } = server.keys
      server.#child = await Child.start(
        'versitygw',
        ['--port', `127.0.0.1:${port}`, '--region', server.region, '--quiet', 'posix', directory.path],
        { env: { ...process.env, ROOT_ACCESS_KEY: accessKeyId, ROOT_SECRET_KEY: secretAccessKey } },
      )
      await server.#child.waitForPort(port)
      return server
    } catch (error: unknown) {
      await server[Symbol.asyncDispose]()
      throw error
    }
  }

  async createBucket(bucket: string): Promise<void> {
    await this.#put(`/${bucket}`, new Uint8Array())
  }

  /** Replaces what is there. */
  async putObject(bucket: string, key: string, bytes: Uint8Array): Promise<void> {
    // Everything is escaped but letters, digits, `-`, `.`, `_`, `~` and slashes.
    const escaped = [...Buffer.from(key)].map(byte => {
      const char = String.fromCharCode(byte)
      return /[A-Za-z0-9._~/-]/.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
    })
    await this.#put(`/${bucket}/${escaped.join('')}`, bytes)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child?.stop()
    await this.#directory[Symbol.asyncDispose]()
  }

  async #put(path: string, body: Uint8Array): Promise<void> {
    const { host, hostname, protocol } = new URL(this.url)
    const signer = new SignatureV4({
      service: 's3',
      region: this.region,
      credentials: this.keys,
      sha256: Sha256,
      uriEscapePath: false,
    })
    const { headers } = await signer.sign({
      method: 'PUT',
      protocol,
      hostname,
      path,
      headers: { host },
      query: {},
      body,
    })
    const response = await fetch(`${this.url}${path}`, { method: 'PUT', headers, body: Buffer.from(body) })
    if (!response.ok) throw new Error(`versitygw answered ${response.status} to PUT ${path}: ${await response.text()}`)
  }
}
