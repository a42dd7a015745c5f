import fs from 'node:fs/promises'
import path from 'node:path'
import { Child, run, temporaryDirectory, type TemporaryDirectory } from './processes.ts'

/** Needs a mount helper, a device, or writes outside of its own directories. */
const DISABLED = [
  'io.containerd.grpc.v1.cri',
  'io.containerd.internal.v1.opt',
  'io.containerd.internal.v1.tracing',
  'io.containerd.snapshotter.v1.aufs',
  'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.overlayfs',
  'io.containerd.snapshotter.v1.zfs',
]

export interface PullOptions {
  /** `registry.test/name:tag`. */
  readonly reference: string
  /** A certs.d directory, see writeHosts(). */
  readonly hosts: string
  /** Content is not shared between namespaces: each one starts cold. */
  readonly namespace: string
}

/** A containerd of our own: its directories and its socket are temporary. Needs root. */
export class Containerd implements AsyncDisposable {
  readonly #directory: TemporaryDirectory
  readonly #child: Child
  readonly #socket: string

  private constructor(directory: TemporaryDirectory, child: Child, socket: string) {
    this.#directory = directory
    this.#child = child
    this.#socket = socket
  }

  static async start(): Promise<Containerd> {
    const directory = await temporaryDirectory('shoal-containerd')
    const socket = path.join(directory.path, 'containerd.sock')
    let child: Child | undefined
    try {
      const config = path.join(directory.path, 'config.toml')
      await fs.writeFile(config, configuration(directory.path, socket))
      child = await Child.start('containerd', ['--config', config, '--log-level', 'info'], { deathSignal: 'TERM' })
      await child.waitForLine(line => (line.includes('containerd successfully booted') ? true : undefined))
      return new Containerd(directory, child, socket)
    } catch (error: unknown) {
      await child?.stop()
      await directory[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Pulls and unpacks. Throws with what ctr said. */
  async pull(options: PullOptions): Promise<void> {
    const flags = ['--hosts-dir', options.hosts, '--snapshotter', 'native', '--platform', 'linux/amd64']
    await this.#ctr(options.namespace, ['images', 'pull', ...flags, options.reference])
  }

  /** The digests of everything pulled into a namespace, in order. containerd has checked each one as it came in. */
  async contents(namespace: string): Promise<string[]> {
    const stdout = await this.#ctr(namespace, ['content', 'ls', '--quiet'])
    return stdout
      .split('\n')
      .filter(line => line !== '')
      .toSorted()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.stop()
    await this.#directory[Symbol.asyncDispose]()
  }

  async #ctr(namespace: string, args: readonly string[]): Promise<string> {
    const { stdout } = await run('ctr', ['--address', this.#socket, '--namespace', namespace, ...args])
    return stdout
  }
}

/**
 * Writes `<directory>/<registry>/hosts.toml`: pulls of `registry` go to `mirror`, or to several in their order, and, when none can serve, to
 * `server`. `more`: further lines of every mirror.
 */
export async function writeHosts(
  directory: string,
  hosts: { registry: string; server: string; mirror: string | readonly string[]; more?: readonly string[] },
): Promise<void> {
  const folder = path.join(directory, hosts.registry)
  await fs.mkdir(folder, { recursive: true })
  const lines = [`server = "${hosts.server}"`, '']
  for (const mirror of [hosts.mirror].flat()) {
    lines.push(`[host."${mirror}"]`, '  capabilities = ["pull", "resolve"]', ...(hosts.more ?? []), '')
  }
  await fs.writeFile(path.join(folder, 'hosts.toml'), lines.join('\n'))
}

function configuration(directory: string, socket: string): string {
  return [
    'version = 2',
    `root = "${path.join(directory, 'root')}"`,
    `state = "${path.join(directory, 'run')}"`,
    `disabled_plugins = [${DISABLED.map(name => `"${name}"`).join(', ')}]`,
    '[grpc]',
    `  address = "${socket}"`,
    '[plugins."io.containerd.metadata.v1.bolt"]',
    '  content_sharing_policy = "isolated"',
    '',
  ].join('\n')
}
