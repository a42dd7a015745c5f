import { X509Certificate, randomUUID } from 'node:crypto'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { ShoalError, systemCode, type Clock } from '../../core/index.ts'
import { createRoot, type KeyPair } from './certificates.ts'

const DIRECTORY_MODE = 0o700
const KEY_MODE = 0o600
const CERTIFICATE_MODE = 0o644
/** Permission bits of a key file that nobody but its owner may have. */
const OTHERS = 0o077
const HOUR_MS = 3600_000
const TEN_YEARS_MS = 3652 * 24 * HOUR_MS

/** What a client needs to trust the authority. */
export interface AuthorityFacts {
  /** PEM. */
  readonly certificate: string
  /** SHA-256, as openssl prints it. */
  readonly fingerprint: string
  /** Where the certificate is. */
  readonly file: string
}

/**
 * Makes the node's own authority in `directory`. Throws ERR_CONFIG_INVALID when there is one and `force` is not set; ERR_STORE_IO when the
 * disk refuses.
 */
export async function initProxyAuthority(
  deps: { clock: Clock },
  { directory, force = false }: { directory: string; force?: boolean },
): Promise<AuthorityFacts> {
  const now = deps.clock.now()
  const validity = { notBefore: new Date(now - HOUR_MS), notAfter: new Date(now + TEN_YEARS_MS) }
  const pair = await createRoot(`Shoal proxy CA ${os.hostname()}`, validity)
  const { certificate, key } = filesOf(directory)
  if (!force && ((await exists(key)) || (await exists(certificate)))) throw taken(directory)
  try {
    await fs.mkdir(directory, { recursive: true, mode: DIRECTORY_MODE })
    await publish(key, pair.key, KEY_MODE, force)
    await publish(certificate, pair.certificate, CERTIFICATE_MODE, force)
  } catch (error: unknown) {
    // Somebody else was faster.
    if (systemCode(error) === 'EEXIST' && !force && (await exists(key))) throw taken(directory)
    throw new ShoalError('ERR_STORE_IO', `the proxy CA could not be written to ${directory}`, { cause: error })
  }
  return factsOf(pair.certificate, certificate)
}

/** The authority in `directory`, without its key. Throws ERR_CONFIG_INVALID when there is none, or none that can be read. */
export async function readProxyAuthority({ directory }: { directory: string }): Promise<AuthorityFacts> {
  const { certificate } = filesOf(directory)
  const text = await read(certificate)
  try {
    return factsOf(text, certificate)
  } catch (error: unknown) {
    throw new ShoalError('ERR_CONFIG_INVALID', `${certificate} is no certificate`, { cause: error })
  }
}

/** The authority in `directory`. Throws ERR_CONFIG_INVALID also when others may read its key. */
export async function readKeyPair({ directory }: { directory: string }): Promise<AuthorityFacts & KeyPair> {
  const facts = await readProxyAuthority({ directory })
  const { key } = filesOf(directory)
  const text = await read(key)
  if (((await fs.stat(key)).mode & OTHERS) !== 0)
    throw new ShoalError('ERR_CONFIG_INVALID', `${key} may be read by others than its owner: chmod 600 it`)
  return { ...facts, key: text }
}

function filesOf(directory: string): { readonly certificate: string; readonly key: string } {
  return { certificate: path.join(directory, 'ca.crt'), key: path.join(directory, 'ca.key') }
}

function factsOf(certificate: string, file: string): AuthorityFacts {
  return { certificate, fingerprint: new X509Certificate(certificate).fingerprint256, file }
}

function taken(directory: string): ShoalError {
  return new ShoalError('ERR_CONFIG_INVALID', `there is a proxy CA in ${directory}: --force replaces it`)
}

function exists(file: string): Promise<boolean> {
  return fs.access(file).then(
    () => true,
    () => false,
  )
}

async function read(file: string): Promise<string> {
  try {
    return await fs.readFile(file, 'utf8')
  } catch (error: unknown) {
    const problem =
      systemCode(error) === 'ENOENT' ? 'is not there: "shoal proxy-ca init" makes it' : 'could not be read'
    throw new ShoalError('ERR_CONFIG_INVALID', `${file} ${problem}`, { cause: error })
  }
}

/** A file appears whole or not at all, and has its permissions before it has content. */
async function publish(file: string, text: string, mode: number, force: boolean): Promise<void> {
  const fresh = `${file}.${randomUUID()}`
  try {
    await fs.writeFile(fresh, text, { mode, flag: 'wx', flush: true })
    // A link, unlike a rename, does not replace what is there.
    if (force) await fs.rename(fresh, file)
    else await fs.link(fresh, file)
  } finally {
    await fs.rm(fresh, { force: true })
  }
}
