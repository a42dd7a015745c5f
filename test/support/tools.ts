import { once } from 'node:events'
import { existsSync } from 'node:fs'
import fs from 'node:fs/promises'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** Where a tool comes from, where that is not a Debian package of its name. */
const PACKAGES: Readonly<Record<string, string>> = {
  ctr: 'containerd',
  htpasswd: 'apache2-utils',
  ip: 'iproute2',
  nginx: 'nginx-light',
  setpriv: 'util-linux',
  sfdisk: 'fdisk',
  sgdisk: 'gdisk',
  versitygw: 'built with Go by npm run check',
}

/** Where the servers among the tools live; not in everybody's PATH. */
const EXTRA_PATH = ['/usr/local/sbin', '/usr/sbin', '/sbin']

/** Below the kernel's ephemeral range, so that no outgoing connection and no port 0 can take one in between. */
const PORTS = { first: 20_000, end: 32_000 }

/** The folder with package.json, from wherever the compiled code lies below it. */
export const projectRoot: string = findRoot(path.dirname(fileURLToPath(import.meta.url)))

function findRoot(start: string): string {
  let directory = start
  while (!existsSync(path.join(directory, 'package.json'))) directory = path.dirname(directory)
  return directory
}

export function packageOf(tool: string): string {
  return PACKAGES[tool] ?? tool
}

/** The absolute path of a command, or undefined when this machine has none. */
export async function findTool(name: string): Promise<string | undefined> {
  const built = path.join(projectRoot, 'node_modules', '.cache', 'tools')
  for (const directory of [...(process.env['PATH'] ?? '').split(':'), ...EXTRA_PATH, built]) {
    const file = path.join(directory, name)
    const usable = await fs.access(file, fs.constants.X_OK).then(
      () => true,
      () => false,
    )
    if (directory !== '' && usable) return file
  }
  return undefined
}

/** The absolute path of a command. Throws, naming the Debian package that has it. */
export async function findToolOrThrow(name: string): Promise<string> {
  const file = await findTool(name)
  if (file === undefined) throw new Error(`${name} is not installed (Debian package ${packageOf(name)})`)
  return file
}

/** For node:test's `skip`: why a test cannot run here, or false. */
export async function skipWithout(
  tools: readonly string[],
  options: { readonly root?: boolean } = {},
): Promise<string | false> {
  const missing: string[] = []
  for (const tool of tools) if ((await findTool(tool)) === undefined) missing.push(`${tool} (${packageOf(tool)})`)
  if (missing.length > 0) return `needs ${missing.join(', ')}`
  return options.root === true && process.getuid?.() !== 0 ? 'needs root' : false
}

export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = PORTS.first + Math.floor(Math.random() * (PORTS.end - PORTS.first))
    const server = net.createServer()
    try {
      server.listen(port, '127.0.0.1')
      await once(server, 'listening')
      return port
    } catch {
      continue
    } finally {
      server.close()
    }
  }
  throw new Error('no free port')
}

export interface TemporaryDirectory extends AsyncDisposable {
  readonly path: string
}

export async function temporaryDirectory(name = 'shoal-test'): Promise<TemporaryDirectory> {
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), `${name}-`))
  return {
    path: directory,
    [Symbol.asyncDispose]: () => fs.rm(directory, { recursive: true, force: true, maxRetries: 3 }),
  }
}
