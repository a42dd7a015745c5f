import fs from 'node:fs/promises'
import path from 'node:path'
import { run, temporaryDirectory } from './processes.ts'
import type { Credentials } from './htpasswd.ts'

export interface CopyOptions {
  /** `oci:<dir>:<tag>` or `docker://host:port/name:tag`. */
  readonly from: string
  readonly to: string
  readonly fromCredentials?: Credentials
  readonly toCredentials?: Credentials
  /** A directory of `*.crt`, authorities that have to vouch for the source. Without it nobody has to, and plain http is tried too. */
  readonly fromCertificates?: string
  /** `http://[user:password@]host:port`, for http and for https. */
  readonly proxy?: string
}

/** skopeo copy, with nothing of this machine's own registry configuration: no credentials, no policy, certificates not verified. */
export async function copyImage(options: CopyOptions): Promise<void> {
  await using directory = await temporaryDirectory('shoal-skopeo')
  const { fromCertificates, fromCredentials, proxy, toCredentials } = options
  await run(
    'skopeo',
    [
      '--insecure-policy',
      'copy',
      '--quiet',
      '--preserve-digests',
      ...(fromCertificates === undefined ? ['--src-tls-verify=false'] : ['--src-cert-dir', fromCertificates]),
      '--dest-tls-verify=false',
      ...(fromCredentials === undefined ? [] : ['--src-creds', loginOf(fromCredentials)]),
      ...(toCredentials === undefined ? [] : ['--dest-creds', loginOf(toCredentials)]),
      options.from,
      options.to,
    ],
    { env: { ...(await containersHome(directory.path)), ...proxySettings(proxy) } },
  )
}

/** An environment in which skopeo and podman find nothing of this machine's own, neither logins nor policies nor proxies, and leave nothing. */
export async function containersHome(directory: string): Promise<NodeJS.ProcessEnv> {
  const settings = path.join(directory, 'home', '.config', 'containers')
  await fs.mkdir(settings, { recursive: true })
  await fs.writeFile(
    path.join(settings, 'policy.json'),
    JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] }),
  )
  const logins = path.join(directory, 'auth.json')
  // podman insists that it is there.
  await fs.writeFile(logins, '{}')
  return {
    ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/_proxy$/i.test(name))),
    HOME: path.join(directory, 'home'),
    REGISTRY_AUTH_FILE: logins,
    // What is known of blobs is then kept below XDG_DATA_HOME, for root too.
    _CONTAINERS_ROOTLESS_UID: '1',
    XDG_DATA_HOME: path.join(directory, 'data'),
  }
}

/** The environment's way of naming a proxy. Go's clients never use one for localhost and loopback addresses. */
export function proxySettings(proxy: string | undefined): NodeJS.ProcessEnv {
  return proxy === undefined ? {} : { http_proxy: proxy, https_proxy: proxy }
}

function loginOf({ password, username }: Credentials): string {
  return `${username}:${password}`
}
