// Runs the compiled tests: node scripts/test.mjs [--unit|--integration] [files...]
// A file may be named by any part of its path, as source or compiled: `test/core`, `range.test.ts`.
import fs from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { root, run, say } from './setup.mjs'

/** The slowest tests kill and restart daemons for minutes; what takes longer hangs. */
const TIMEOUT_MS = 10 * 60_000
const CONCURRENCY = 2

const { values, positionals } = parseArgs({
  options: { unit: { type: 'boolean' }, integration: { type: 'boolean' } },
  allowPositionals: true,
})

const wanted = positionals.map(name => name.replace(/^(?:\.\/)?(?:dist\/)?/, '').replace(/\.ts$/, '.js'))
const files = fs
  .readdirSync(path.join(root, 'dist', 'test'), { recursive: true, encoding: 'utf8' })
  .filter(file => file.endsWith('.test.js'))
  .map(file => path.join('test', file))
  .filter(file => !(values.unit ?? false) || !isIntegration(file))
  .filter(file => !(values.integration ?? false) || isIntegration(file))
  .filter(file => wanted.length === 0 || wanted.some(name => file.includes(name)))
  .sort()

if (files.length === 0) {
  say('no compiled test matches; has it been built?')
  process.exit(1)
}

const passed = await run(process.execPath, [
  '--enable-source-maps',
  '--test',
  `--test-concurrency=${CONCURRENCY}`,
  `--test-timeout=${TIMEOUT_MS}`,
  '--test-reporter=spec',
  '--test-reporter-destination=stdout',
  `--test-reporter=${path.join(root, 'scripts', 'skip-summary.mjs')}`,
  '--test-reporter-destination=stdout',
  ...files.map(file => path.join('dist', file)),
])
process.exitCode = passed ? 0 : 1

/** @param {string} file */
function isIntegration(file) {
  return file.startsWith(path.join('test', 'integration') + path.sep)
}
