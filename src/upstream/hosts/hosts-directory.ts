import { describeError, ShoalError, type Logger } from '../../core/index.ts'
import { readTlsMaterial } from '../net/tls.ts'
import type { MirrorOptions } from '../options.ts'
import { FileStates } from './file-states.ts'
import type { HostTarget, NamedTls } from './hosts-file.ts'
import { localServer } from './local-server.ts'
import { filesOf, scanHosts, type ScannedHost } from './scan.ts'

/** What a directory says of one registry. A broken one says nothing, and leaves the others alone. */
export type HostsEntry =
  | {
      readonly kind: 'ok'
      /** The hosts.toml, or the directory of certificates without one. */
      readonly file: string
      /** Asked last. Absent: the registry itself, as if nothing were said. */
      readonly server?: HostTarget
      /** In the order to try. */
      readonly mirrors: readonly MirrorOptions[]
    }
  | {
      readonly kind: 'broken'
      readonly file: string
      /** ERR_CONFIG_INVALID. Its message names file, line and key, and no values but names of files. */
      readonly error: ShoalError
    }

export interface HostsDirectory {
  /** By normalised name of a registry, or DEFAULT_HOST for all that are not there. */
  readonly hosts: ReadonlyMap<string, HostsEntry>
  /** Files and directories whose change matters, those that were not found included. */
  readonly files: readonly string[]
}

/**
 * Reads containerd's directory of registries: `<root>/<host>/hosts.toml`, or certificates as Docker wants them. `root` may be several,
 * separated by colons: for each registry the first counts that has a directory for it, or one for all. A root that does not exist has none.
 * Throws ERR_CONFIG_INVALID when a root cannot be read.
 */
export async function readHosts(
  { log }: { readonly log: Logger },
  { root }: { readonly root: string },
): Promise<HostsDirectory> {
  const states = new FileStates()
  const hosts = new Map<string, HostsEntry>()
  for (const scanned of await scanHosts(states, root)) hosts.set(scanned.registry, await entryOf(log, scanned))
  // Most likely a typing error, but it may just as well be filled later.
  if (hosts.size === 0) log.info({ path: root }, 'no registries in certs.d')
  return { hosts, files: states.files }
}

/**
 * Changes when readHosts() may have another result. Of certificates only their state is looked at, and no result is kept from one call to
 * the next; never throws. A change between this and a reading that follows it shows in the next signature.
 */
export async function hostsSignature({ root }: { readonly root: string }): Promise<string> {
  const states = new FileStates()
  try {
    await scanHosts(states, root)
  } catch {
    // What cannot be read is among the states, as what it is.
  }
  return states.signature
}

async function entryOf(log: Logger, { file, hosts, registry }: ScannedHost): Promise<HostsEntry> {
  if (hosts instanceof ShoalError) return { kind: 'broken', file, error: hosts }
  for (const { key, line } of hosts.unknown) log.warn({ file, line, key }, 'unknown key in hosts.toml ignored')
  for (const named of hosts.namedTls) {
    const error = await problemOf(named)
    if (error !== undefined) return { kind: 'broken', file, error }
  }
  const server = localServer(registry, hosts.server)
  return { kind: 'ok', file, mirrors: hosts.mirrors, ...(server === undefined ? {} : { server }) }
}

async function problemOf({ at, tls }: NamedTls): Promise<ShoalError | undefined> {
  try {
    await readTlsMaterial(tls)
    return undefined
  } catch (error: unknown) {
    const what = `${at}: ${filesOf(tls).join(' and ')}: ${describeError(error)}`
    return new ShoalError('ERR_CONFIG_INVALID', what, { cause: error })
  }
}
