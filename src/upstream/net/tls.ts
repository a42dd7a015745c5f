import { X509Certificate } from 'node:crypto'
import fs from 'node:fs/promises'
import tls from 'node:tls'
import { ShoalError, systemCode } from '../../core/index.ts'
import type { ClientCertificate, TlsOptions } from '../options.ts'

/** PEM texts of a certificate and its key. */
interface Identity {
  readonly cert: string
  readonly key: string
}

/** The files of TlsOptions, read. Plain data: two of them can be compared. */
export interface TlsMaterial {
  readonly ca: readonly string[]
  readonly identities: readonly Identity[]
  readonly skipVerify: boolean
  readonly serverName?: string
}

/** What undici's connector passes to tls.connect. */
export interface TlsConnectOptions {
  readonly rejectUnauthorized: boolean
  readonly secureContext?: tls.SecureContext
  readonly servername?: string
}

/** Of a host that nothing is configured for. */
export const PUBLIC_TLS: TlsOptions = { ca: [], clients: [], skipVerify: false }

/** Reads the files. Throws ERR_CONFIG_INVALID that names the file. */
export async function readTlsMaterial(options: TlsOptions): Promise<TlsMaterial> {
  const { ca, clients, serverName, skipVerify } = options
  const material: TlsMaterial = {
    ca: await Promise.all(ca.map(readPem)),
    identities: await Promise.all(clients.map(readIdentity)),
    skipVerify,
    ...(serverName === undefined ? {} : { serverName }),
  }
  ownHostTls(material)
  return material
}

/** For the host itself. Throws ERR_CONFIG_INVALID when the material is no usable PEM. */
export function ownHostTls(material: TlsMaterial): TlsConnectOptions {
  const { identities, serverName } = material
  return {
    ...connectTls(material, identities),
    ...(serverName === undefined ? {} : { servername: serverName }),
  }
}

/** For hosts that the host redirects to or names as realm: its authorities, but neither its client certificate nor its server name. */
export function foreignHostTls(material: TlsMaterial): TlsConnectOptions {
  return connectTls(material, [])
}

function connectTls({ ca, skipVerify }: TlsMaterial, identities: readonly Identity[]): TlsConnectOptions {
  const verify = { rejectUnauthorized: !skipVerify }
  if (ca.length === 0 && identities.length === 0) return verify
  try {
    // createSecureContext passes over an authority that it cannot read.
    for (const authority of ca) new X509Certificate(authority)
    const secureContext = tls.createSecureContext({
      ...(ca.length === 0 ? {} : { ca: [...tls.rootCertificates, ...ca] }),
      ...(identities.length === 0
        ? {}
        : { cert: identities.map(({ cert }) => cert), key: identities.map(({ key }) => key) }),
    })
    return { ...verify, secureContext }
  } catch (error: unknown) {
    throw new ShoalError('ERR_CONFIG_INVALID', 'a certificate or key of the TLS configuration cannot be used', {
      cause: error,
    })
  }
}

async function readIdentity({ cert, key }: ClientCertificate): Promise<Identity> {
  const certificate = await readPem(cert)
  return { cert: certificate, key: key === undefined ? certificate : await readPem(key) }
}

async function readPem(file: string): Promise<string> {
  try {
    return await fs.readFile(file, 'utf8')
  } catch (error: unknown) {
    throw new ShoalError('ERR_CONFIG_INVALID', `cannot read ${file} (${systemCode(error) ?? 'unknown'})`, {
      cause: error,
    })
  }
}
