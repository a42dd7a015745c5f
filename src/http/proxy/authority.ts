import { X509Certificate, createPrivateKey } from 'node:crypto'
import { createSecureContext, type SecureContext } from 'node:tls'
import { LRUCache } from 'lru-cache'
import { ShoalError, SingleFlight, type Clock } from '../../core/index.ts'
import { readKeyPair } from './authority-files.ts'
import { issuerOf, type Issue, type KeyPair } from './certificates.ts'

const HOUR_MS = 3600_000
/** So that clients whose clock is behind take a certificate that was made just now. */
const BACKDATED_MS = HOUR_MS
const LEAF_MS = 7 * 24 * HOUR_MS
const MAX_LEAVES = 256

interface Leaf {
  readonly context: SecureContext
  /** Milliseconds since 1970. */
  readonly renewAt: number
}

interface Parts {
  readonly clock: Clock
  readonly issue: Issue
  readonly certificate: string
  readonly fingerprint: string
}

/** The node's own certificate authority, and the server certificates that it has issued in this run. Holds nothing that needs closing. */
export class CertificateAuthority {
  /** PEM. */
  readonly certificate: string
  /** SHA-256, as openssl prints it. */
  readonly fingerprint: string
  readonly #clock: Clock
  readonly #issue: Issue
  readonly #leaves = new LRUCache<string, Leaf>({ max: MAX_LEAVES })
  readonly #flights = new SingleFlight<SecureContext>()

  private constructor({ clock, issue, certificate, fingerprint }: Parts) {
    this.#clock = clock
    this.#issue = issue
    this.certificate = certificate
    this.fingerprint = fingerprint
  }

  /** Reads ca.crt and ca.key. Throws ERR_CONFIG_INVALID, with what to do, when they cannot be used. */
  static async open(deps: { clock: Clock }, options: { directory: string }): Promise<CertificateAuthority> {
    const { certificate, key, fingerprint, file } = await readKeyPair(options)
    return new CertificateAuthority({
      clock: deps.clock,
      issue: await usable({ certificate, key }, file, deps.clock.now()),
      certificate,
      fingerprint,
    })
  }

  /** For a TLS server that is `host`, a DNS name or an address. May be called concurrently. */
  async leafFor(host: string): Promise<SecureContext> {
    const leaf = this.#leaves.get(host)
    if (leaf !== undefined && this.#clock.now() < leaf.renewAt) return leaf.context
    return this.#flights.run(host, async () => {
      const now = this.#clock.now()
      const { certificate, key } = await this.#issue(host, {
        notBefore: new Date(now - BACKDATED_MS),
        notAfter: new Date(now + LEAF_MS),
      })
      const context = createSecureContext({ cert: certificate, key })
      this.#leaves.set(host, { context, renewAt: now + LEAF_MS / 2 })
      return context
    })
  }
}

async function usable(pair: KeyPair, file: string, now: number): Promise<Issue> {
  const refuse = (problem: string, cause?: unknown): never => {
    throw new ShoalError('ERR_CONFIG_INVALID', `${file} ${problem}: "shoal proxy-ca init --force" makes another`, {
      cause,
    })
  }
  const certificate = new X509Certificate(pair.certificate)
  if (!certificate.ca) refuse('is not a certificate authority')
  if (Date.parse(certificate.validTo) <= now) refuse('has expired')
  try {
    if (!certificate.checkPrivateKey(createPrivateKey(pair.key))) refuse('does not belong to the key beside it')
    return await issuerOf(pair)
  } catch (error: unknown) {
    if (error instanceof ShoalError) throw error
    return refuse('has no P-256 key beside it that can be read', error)
  }
}
