import fs from 'node:fs/promises'
import path from 'node:path'
import type { Credentials } from './htpasswd.ts'
import { run, temporaryDirectory } from './processes.ts'
import { containersHome, proxySettings } from './skopeo.ts'

export interface PodmanPull {
  /** `registry.test/name:tag`. */
  readonly reference: string
  /** `http://[user:password@]host:port`, for http and for https. */
  readonly proxy?: string
  /** A directory of `*.crt`, authorities to trust. Without it no certificate is verified, and plain http is tried too. */
  readonly certificates?: string
  readonly credentials?: Credentials
}

/**
 * `podman pull` into storage of its own, which is thrown away: every pull is a cold one. Returns the image's id, the digest of
 * its config; podman has checked the layers against it. Throws with what podman said. Needs root.
 */
export async function podmanPull({ certificates, credentials, proxy, reference }: PodmanPull): Promise<string> {
  await using directory = await temporaryDirectory('shoal-podman')
  const { env, storage } = await prepare(directory.path)
  const pull = [
    'pull',
    '--quiet',
    ...(certificates === undefined ? ['--tls-verify=false'] : ['--cert-dir', certificates]),
    ...(credentials === undefined ? [] : ['--creds', `${credentials.username}:${credentials.password}`]),
    reference,
  ]
  const { stdout } = await run('podman', [...storage, ...pull], { env: { ...env, ...proxySettings(proxy) } })
  return `sha256:${stdout.trim()}`
}

/** Everything that podman reads or writes, away from this machine's own. */
async function prepare(directory: string): Promise<{ env: NodeJS.ProcessEnv; storage: readonly string[] }> {
  const at = (name: string): string => path.join(directory, name)
  const files = {
    'containers.conf': ['[engine]', 'lock_type = "file"', 'events_logger = "none"', 'cgroup_manager = "cgroupfs"'],
    'storage.conf': ['[storage]', 'driver = "vfs"', `graphroot = "${at('root')}"`, `runroot = "${at('run')}"`],
    'registries.conf': ['unqualified-search-registries = []'],
  }
  for (const [name, lines] of Object.entries(files)) await fs.writeFile(at(name), `${lines.join('\n')}\n`)
  return {
    env: {
      ...(await containersHome(directory)),
      CONTAINERS_CONF: at('containers.conf'),
      CONTAINERS_STORAGE_CONF: at('storage.conf'),
      CONTAINERS_REGISTRIES_CONF: at('registries.conf'),
      XDG_RUNTIME_DIR: at('runtime'),
      TMPDIR: directory,
    },
    storage: [
      ...['--root', at('root'), '--runroot', at('run'), '--tmpdir', at('tmp'), '--storage-driver', 'vfs'],
      ...['--network-config-dir', at('networks')],
    ],
  }
}
