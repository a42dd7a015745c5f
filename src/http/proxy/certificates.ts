import { createPrivateKey, randomBytes, webcrypto } from 'node:crypto'
import { isIP } from 'node:net'
import type * as X509 from '@peculiar/x509'

const KEY = { name: 'ECDSA', namedCurve: 'P-256' } as const
const SIGNATURE = { name: 'ECDSA', hash: 'SHA-256' } as const
/** RFC 5280, appendix A: ub-common-name. */
const MAX_COMMON_NAME = 64

/** A certificate and its key, as PEM. */
export interface KeyPair {
  readonly certificate: string
  readonly key: string
}

export interface Validity {
  readonly notBefore: Date
  readonly notAfter: Date
}

/** A root that signs leaves and nothing else. */
export async function createRoot(commonName: string, validity: Validity): Promise<KeyPair> {
  const x509 = await library()
  const keys = await newKeys()
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity,
    serialNumber: serialNumber(),
    name: [{ CN: [commonName.slice(0, MAX_COMMON_NAME)] }],
    keys,
    signingAlgorithm: SIGNATURE,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { certificate: pem(certificate), key: await exported(keys.privateKey) }
}

/** Makes server certificates for one host each: a DNS name or an address. */
export type Issue = (host: string, validity: Validity) => Promise<KeyPair>

/** `root` holds a P-256 key, as createRoot() makes it. Rejects when it does not. */
export async function issuerOf(root: KeyPair): Promise<Issue> {
  const x509 = await library()
  const authority = new x509.X509Certificate(root.certificate)
  const der = createPrivateKey(root.key).export({ type: 'pkcs8', format: 'der' })
  const signingKey = await webcrypto.subtle.importKey('pkcs8', der, KEY, false, ['sign'])
  return async (host, validity) => {
    const keys = await newKeys()
    const certificate = await x509.X509CertificateGenerator.create({
      ...validity,
      serialNumber: serialNumber(),
      issuer: authority.subjectName,
      subject: host.length > MAX_COMMON_NAME ? [] : [{ CN: [host] }],
      publicKey: keys.publicKey,
      signingKey,
      signingAlgorithm: SIGNATURE,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
        // Critical where it is the only name (RFC 5280, 4.2.1.6).
        new x509.SubjectAlternativeNameExtension(
          [{ type: isIP(host) === 0 ? 'dns' : 'ip', value: host }],
          host.length > MAX_COMMON_NAME,
        ),
        await x509.AuthorityKeyIdentifierExtension.create(authority),
      ],
    })
    return { certificate: pem(certificate), key: await exported(keys.privateKey) }
  }
}

/** Loaded when it is needed: it takes longer than the whole rest of a start, and few nodes intercept. */
async function library(): Promise<typeof X509> {
  // The library's decorators need it, and do not bring it.
  await import('reflect-metadata')
  return import('@peculiar/x509')
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(KEY, true, ['sign', 'verify'])
}

/** Positive, 127 bits of chance (RFC 5280, 4.1.2.2: at most 20 bytes). */
function serialNumber(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40
  return bytes.toString('hex')
}

function pem(certificate: X509.X509Certificate): string {
  return `${certificate.toString('pem')}\n`
}

async function exported(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key))
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    .export({ type: 'pkcs8', format: 'pem' })
    .toString()
}
