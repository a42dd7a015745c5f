// Everything that has to hold before a commit: packages, build, lint, tests with coverage. The runner's own summary is printed last.
import { spawn } from 'node:child_process'
import path from 'node:path'
import { build, ensureDebianPackages, ensureGoTool, ensurePackages, root, runTool, say } from './setup.mjs'

/** The real servers and clients that the integration tests talk to. */
const DEBIAN_PACKAGES = [
  'docker-registry',
  'containerd',
  'runc',
  'skopeo',
  'podman',
  'nginx-light',
  'apache2-utils',
  'openssl',
  'ca-certificates',
  'curl',
  'iproute2',
  'fdisk',
  'gdisk',
]

/** Servers that Debian does not have: built with Go, where that is there. */
const GO_TOOLS = { versitygw: 'github.com/versity/versitygw/cmd/versitygw@v1.8.0' }

/** Per cent of src/ that the tests must reach. */
const COVERAGE = { lines: 85, functions: 85, branches: 80 }

const failures = []

try {
  await ensurePackages()
  await ensureDebianPackages(DEBIAN_PACKAGES)
  for (const [name, module] of Object.entries(GO_TOOLS)) await ensureGoTool(name, module)
  await build({ clean: true })
  await lint('eslint', 'eslint/bin/eslint.js', ['.', '--max-warnings', '0'])
  await lint('prettier', 'prettier/bin/prettier.cjs', ['--check', '--log-level', 'warn', '.'])
  await lint('dependency-cruiser', 'dependency-cruiser/bin/dependency-cruise.mjs', ['src'])
  const { passed, summary } = await test()
  if (!passed) failures.push('tests or their coverage')
  for (const line of summary) say(line)
} catch (error) {
  failures.push(error instanceof Error ? error.message : String(error))
}

if (failures.length > 0) say(`check failed: ${failures.join(', ')}`)
process.exitCode = failures.length > 0 ? 1 : 0

/**
 * A failure is kept, and the rest goes on: one run tells everything.
 * @param {string} name
 * @param {string} script
 * @param {readonly string[]} args
 */
async function lint(name, script, args) {
  say(`${name} ...`)
  if (!(await runTool(script, args))) failures.push(name)
}

/**
 * Runs all tests under c8, showing their output as it comes.
 * @returns {Promise<{ passed: boolean, summary: string[] }>} `summary`: the runner's closing lines, "pass 12" and so on
 */
function test() {
  const c8 = path.join('node_modules', 'c8', 'bin', 'c8.js')
  const limits = Object.entries(COVERAGE).flatMap(([name, percent]) => [`--${name}`, String(percent)])
  const child = spawn(
    process.execPath,
    [
      c8,
      ...['--all', '--src', 'src', '--include', 'src/**', '--exclude-after-remap'],
      ...['--reporter', 'text-summary', '--check-coverage', ...limits],
      ...[process.execPath, 'scripts/test.mjs'],
    ],
    { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const summary = new Map()
  let rest = ''
  child.stdout.setEncoding('utf8').on('data', text => {
    process.stdout.write(text)
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      const name = /^(?:ℹ|#) (tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) [\d.]+$/.exec(line)?.[1]
      if (name !== undefined) summary.set(name, line)
    }
  })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', code => resolve({ passed: code === 0, summary: [...summary.values()] }))
  })
}
