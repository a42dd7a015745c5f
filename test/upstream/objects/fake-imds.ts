import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'

const ROLE = 'role-of-the-node'
const TOKEN = 'a-token-of-the-metadata-service'

export interface ImdsCredentials {
  readonly AccessKeyId: string
  readonly SecretAccessKey: string
  readonly Token: string
  /** ISO 8601. */
  readonly Expiration: string
}

/** Version 2 of the instance metadata service of EC2: a token by PUT, then the role and its credentials. */
export class FakeImds implements AsyncDisposable {
  /** Undefined: the instance has no role. */
  credentials: ImdsCredentials | undefined = undefined
  /** Requests of any kind. */
  asked = 0
  /** How often credentials were fetched. */
  fetched = 0
  readonly #server: http.Server

  private constructor() {
    this.#server = http.createServer((request, response) => {
      this.asked += 1
      const [status, body] = this.#answer(request)
      response.writeHead(status).end(body)
    })
  }

  static async start(): Promise<FakeImds> {
    const imds = new FakeImds()
    imds.#server.listen(0, '127.0.0.1')
    await once(imds.#server, 'listening')
    return imds
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    await closed
  }

  #answer({ headers, method, url }: http.IncomingMessage): [status: number, body: string] {
    if (method === 'PUT' && url === '/latest/api/token') {
      return headers['x-aws-ec2-metadata-token-ttl-seconds'] === undefined ? [400, ''] : [200, TOKEN]
    }
    if (headers['x-aws-ec2-metadata-token'] !== TOKEN) return [401, '']
    if (this.credentials === undefined) return [404, '']
    const folder = '/latest/meta-data/iam/security-credentials/'
    if (method === 'GET' && url === folder) return [200, ROLE]
    if (method !== 'GET' || url !== `${folder}${ROLE}`) return [404, '']
    this.fetched += 1
    return [200, JSON.stringify({ Code: 'Success', Type: 'AWS-HMAC', ...this.credentials })]
  }
}
