import fs from 'node:fs/promises'
import path from 'node:path'
import {
  Child,
  findToolOrThrow,
  freePort,
  run,
  temporaryDirectory,
  type TemporaryDirectory,
} from '../test/support/processes.ts'

/** Squid gives up root for this user, and is started as it: a change of user would clear the signal that ends it when we die. */
const USER = 'proxy'

/**
 * As a cache for blobs wants it. Squid keeps no partial answers: without `range_offset_limit none` every range would go to the origin, and
 * with it the whole blob is fetched for the first one. Blobs of the size of these stay in its memory, which is its fastest way, and on its
 * disk; one fetch serves all who ask for the same blob; what it has is never asked about again.
 */
const SQUID_CONFIGURATION: readonly string[] = [
  'range_offset_limit none',
  'quick_abort_min -1 KB',
  'collapsed_forwarding on',
  'maximum_object_size 1 GB',
  'cache_mem 1 GB',
  'maximum_object_size_in_memory 512 MB',
  'memory_cache_mode always',
  'refresh_pattern . 1440 100% 1440',
]

export interface SquidDescription {
  readonly version: string
  readonly configuration: readonly string[]
}

export async function describeSquid(): Promise<SquidDescription> {
  const { stdout } = await run('squid', ['-v'])
  return { version: /Version (\S+)/.exec(stdout)?.[1] ?? 'unknown', configuration: SQUID_CONFIGURATION }
}

/** Squid, one process, caching what it is asked for as a forward proxy, on 127.0.0.1. */
export class Squid implements AsyncDisposable {
  readonly url: string
  readonly #child: Child
  readonly #directory: TemporaryDirectory

  private constructor({ directory, child }: { directory: TemporaryDirectory; child: Child }, port: number) {
    this.#directory = directory
    this.#child = child
    this.url = `http://127.0.0.1:${port}`
  }

  static async start(): Promise<Squid> {
    const directory = await temporaryDirectory('shoal-squid')
    let child: Child | undefined
    try {
      const port = await freePort()
      const config = path.join(directory.path, 'squid.conf')
      await fs.writeFile(config, configuration(directory.path, port))
      if (process.getuid?.() === 0) await run('chown', ['-R', `${USER}:`, directory.path])
      await using stores = await startAsUser(['-N', '-z', '-f', config])
      const { code } = await stores.exited
      if (code !== 0) throw new Error(stores.describe('did not make its directories'))
      child = await startAsUser(['-N', '-f', config])
      await child.waitForPort(port)
      return new Squid({ directory, child }, port)
    } catch (error: unknown) {
      await child?.stop()
      await directory[Symbol.asyncDispose]()
      throw error
    }
  }

  get pid(): number {
    return this.#child.pid
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.stop({ graceMs: 5000 })
    await this.#directory[Symbol.asyncDispose]()
  }
}

async function startAsUser(args: readonly string[]): Promise<Child> {
  const squid = await findToolOrThrow('squid')
  if (process.getuid?.() !== 0) return Child.start(squid, args)
  const user = ['--reuid', USER, '--regid', USER, '--init-groups', '--pdeathsig', 'KILL', '--']
  return Child.start('setpriv', [...user, squid, ...args])
}

function configuration(directory: string, port: number): string {
  return `${[
    `http_port 127.0.0.1:${port}`,
    'http_access allow localhost',
    'http_access deny all',
    ...SQUID_CONFIGURATION,
    `cache_dir aufs ${directory}/cache 2048 16 256`,
    `coredump_dir ${directory}`,
    `pid_filename ${directory}/squid.pid`,
    `cache_log ${directory}/cache.log`,
    'access_log none',
    'shutdown_lifetime 0 seconds',
    'pinger_enable off',
    'visible_hostname bench.test',
  ].join('\n')}\n`
}
