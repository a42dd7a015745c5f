import { X509Certificate } from 'node:crypto'
import fs from 'node:fs/promises'
import tls from 'node:tls'
import { ShoalError, systemCode } from '../../core/index.ts'
import type { TlsOptions } from '../options.ts'

/** The files of TlsOptions, read. Plain data: two of them can be compared. */
export interface TlsMaterial {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly skipVerify: boolean
  readonly serverName?: string
}

/** What undici's connector passes to tls.connect. */
export interface TlsConnectOptions {
  readonly rejectUnauthorized: boolean
  readonly secureContext?: tls.SecureContext
  readonly servername?: string
}

/** Reads the files. Throws ERR_CONFIG_INVALID that names the file. */
export async function readTlsMaterial(options: TlsOptions): Promise<TlsMaterial> {
  const { skipVerify } = options
  const [ca, cert, key, serverName] = [options.ca, options.cert, options.key, options.serverName].map(unlessEmpty)
  if ((cert === undefined) !== (key === undefined)) {
    throw new ShoalError('ERR_CONFIG_INVALID', 'a client certificate needs both tls.cert and tls.key')
  }
  const material: TlsMaterial = {
    skipVerify,
    ...(ca === undefined ? {} : { ca: await readPem(ca) }),
    ...(cert === undefined ? {} : { cert: await readPem(cert) }),
    ...(key === undefined ? {} : { key: await readPem(key) }),
    ...(serverName === undefined ? {} : { serverName }),
  }
  ownHostTls(material)
  return material
}

/** For the registry's own host. Throws ERR_CONFIG_INVALID when the material is no usable PEM. */
export function ownHostTls(material: TlsMaterial): TlsConnectOptions {
  const { cert, key, serverName } = material
  return {
    ...foreignHostTls(material, cert === undefined || key === undefined ? {} : { cert, key }),
    ...(serverName === undefined ? {} : { servername: serverName }),
  }
}

/** For hosts that the registry redirects to or names as realm: its authorities, but neither its client certificate nor its server name. */
export function foreignHostTls(
  material: TlsMaterial,
  identity: { readonly cert?: string; readonly key?: string } = {},
): TlsConnectOptions {
  const { ca, skipVerify } = material
  const verify = { rejectUnauthorized: !skipVerify }
  if (ca === undefined && identity.cert === undefined) return verify
  try {
    // createSecureContext passes over an authority that it cannot read.
    if (ca !== undefined) new X509Certificate(ca)
    const authorities = ca === undefined ? {} : { ca: [...tls.rootCertificates, ca] }
    return { ...verify, secureContext: tls.createSecureContext({ ...authorities, ...identity }) }
  } catch (error: unknown) {
    throw new ShoalError('ERR_CONFIG_INVALID', 'tls.ca, tls.cert or tls.key cannot be used', { cause: error })
  }
}

/** A config file says '' for what is not set. */
function unlessEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text
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
