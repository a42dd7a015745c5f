// What has to be there before anything runs: npm packages, Debian packages for the integration tests, the compiled output.
import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'

export const root = path.dirname(import.meta.dirname)

const POLICY_FILE = '/usr/sbin/policy-rc.d'

/** @param {string} text */
export function say(text) {
  process.stdout.write(`${text}\n`)
}

/**
 * Runs a command with our own output and waits for it.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<boolean>} whether it ended well
 */
export function run(command, args, { env = process.env } = {}) {
  return new Promise(resolve => {
    const child = spawn(command, args, { cwd: root, env, stdio: 'inherit' })
    child.once('error', error => {
      say(`${command}: ${error.message}`)
      resolve(false)
    })
    child.once('close', code => resolve(code === 0))
  })
}

/**
 * Runs the command of an npm package that is installed here.
 * @param {string} script path below node_modules
 * @param {readonly string[]} args
 * @returns {Promise<boolean>} whether it ended well
 */
export function runTool(script, args) {
  return run(process.execPath, [path.join(root, 'node_modules', script), ...args])
}

/** Installs the npm packages of the lock file, unless they are there. Throws when that fails. */
export async function ensurePackages() {
  if (packagesAreCurrent()) return
  say('installing npm packages')
  // npm says where it is to the scripts that it runs; a script that was started directly looks for it.
  const npm = process.env['npm_execpath']
  const [command, first] = npm?.endsWith('.js') ? [process.execPath, [npm]] : ['npm', []]
  if (await run(command, [...first, 'ci', '--include=dev'], { env: { ...process.env, ...headersOfThisNode() } })) return
  const missing = missingBuildTools()
  const hint =
    missing.length > 0
      ? `no ${missing.join(', no ')}: native packages cannot be compiled. On Debian: apt-get install build-essential python3`
      : 'its messages are above'
  throw new Error(`npm ci failed; ${hint}`)
}

/** npm writes node_modules/.package-lock.json at the end of an installation. */
function packagesAreCurrent() {
  const installed = fs.statSync(path.join(root, 'node_modules', '.package-lock.json'), { throwIfNoEntry: false })
  return installed !== undefined && installed.mtimeMs >= fs.statSync(path.join(root, 'package-lock.json')).mtimeMs
}

/** The headers that came with the running Node, so that compiling a native package downloads none. */
function headersOfThisNode() {
  const prefix = path.dirname(path.dirname(process.execPath))
  const found = fs.existsSync(path.join(prefix, 'include', 'node', 'node.h'))
  return found && process.env['npm_config_nodedir'] === undefined ? { npm_config_nodedir: prefix } : {}
}

/** @returns {string[]} */
function missingBuildTools() {
  return ['c++', 'make', 'python3'].filter(tool => spawnSync(tool, ['--version']).error !== undefined)
}

/**
 * Installs those Debian packages of `names` that are missing. Only root can; for others, and elsewhere than on Debian, a message says what
 * is missing, and the tests that want it are skipped. Throws when an installation fails.
 * @param {readonly string[]} names
 */
export async function ensureDebianPackages(names) {
  if (spawnSync('dpkg-query', ['--version']).error !== undefined) {
    say(`this is not Debian: integration tests that do not find their programs are skipped (${names.join(', ')})`)
    return
  }
  const missing = names.filter(name => !isInstalled(name))
  if (missing.length === 0) return
  if (process.getuid?.() !== 0) {
    say(
      `not root: the integration tests that need these are skipped. To run them: apt-get install ${missing.join(' ')}`,
    )
    return
  }
  say(`installing Debian packages: ${missing.join(', ')}`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const installed = await withoutServices(
    async () =>
      (await run('apt-get', ['update', '-q'], { env })) &&
      (await run('apt-get', ['install', '-q', '-y', '--no-install-recommends', ...missing], { env })),
  )
  if (!installed) throw new Error(`apt-get could not install ${missing.join(', ')}`)
}

/** Where commands go that are built here; the tests look there too. */
const TOOLS = path.join(root, 'node_modules', '.cache', 'tools')

/**
 * Builds a command with Go, once. Without Go, or when that fails, a message says so, and the tests that want it are skipped.
 * @param {string} name
 * @param {string} module with its version
 */
export async function ensureGoTool(name, module) {
  if (fs.existsSync(path.join(TOOLS, name))) return
  if (spawnSync('go', ['version']).error !== undefined) {
    say(`no Go: the tests that need ${name} are skipped`)
    return
  }
  say(`building ${name}`)
  const built = await run('go', ['install', module], { env: { ...process.env, GOBIN: TOOLS, GOFLAGS: '-mod=mod' } })
  if (!built) say(`${name} could not be built: the tests that need it are skipped`)
}

/** @param {string} name */
function isInstalled(name) {
  const { stdout } = spawnSync('dpkg-query', ['-W', '-f', '${db:Status-Status}', name], { encoding: 'utf8' })
  return stdout === 'installed'
}

/**
 * Runs `install` while no package may start its services (invoke-rc.d asks policy-rc.d; 101 is "not allowed"). A policy that is there
 * already is left as it is; ours is gone afterwards, also when we are interrupted.
 * @template T
 * @param {() => Promise<T>} install
 * @returns {Promise<T>}
 */
async function withoutServices(install) {
  if (fs.existsSync(POLICY_FILE)) return await install()
  const remove = () => fs.rmSync(POLICY_FILE, { force: true })
  const interrupted = () => process.exit(130)
  process.once('exit', remove)
  process.once('SIGINT', interrupted)
  process.once('SIGTERM', interrupted)
  try {
    fs.writeFileSync(POLICY_FILE, '#!/bin/sh\nexit 101\n', { mode: 0o755, flag: 'wx' })
    return await install()
  } finally {
    remove()
    process.off('exit', remove)
    process.off('SIGINT', interrupted)
    process.off('SIGTERM', interrupted)
  }
}

/**
 * Compiles into dist/. Throws when the compiler finds an error.
 * @param {{ clean?: boolean }} [options] `clean`: nothing of an earlier build stays
 */
export async function build({ clean = false } = {}) {
  if (clean) fs.rmSync(path.join(root, 'dist'), { recursive: true, force: true })
  if (!(await runTool('typescript/bin/tsc', ['-p', '.']))) throw new Error('the build failed')
}
