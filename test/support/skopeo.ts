import path from 'node:path'
import { run, temporaryDirectory } from './processes.ts'
import type { Credentials } from './htpasswd.ts'

export interface CopyOptions {
  /** `oci:<dir>:<tag>` or `docker://host:port/name:tag`. */
  readonly from: string
  readonly to: string
  readonly toCredentials?: Credentials
}

/** skopeo copy, with nothing of this machine's own registry configuration: no credentials, no policy, certificates not verified. */
export async function copyImage(options: CopyOptions): Promise<void> {
  await using directory = await temporaryDirectory('shoal-skopeo')
  const { toCredentials } = options
  await run(
    'skopeo',
    [
      '--insecure-policy',
      'copy',
      '--quiet',
      '--preserve-digests',
      '--src-tls-verify=false',
      '--dest-tls-verify=false',
      ...(toCredentials === undefined ? [] : ['--dest-creds', `${toCredentials.username}:${toCredentials.password}`]),
      options.from,
      options.to,
    ],
    { env: { ...process.env, HOME: directory.path, REGISTRY_AUTH_FILE: path.join(directory.path, 'auth.json') } },
  )
}
