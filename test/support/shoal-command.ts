import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { ShoalProcess } from './shoal.ts'

const execute = promisify(execFile)

/** The command that was compiled together with this file. */
const BIN = fileURLToPath(new URL('../../src/main.js', import.meta.url))

/** `shoal ...args`, with nothing of the caller's own configuration. Returns its stdout; throws with its stderr when it fails. */
export async function runShoal(args: readonly string[]): Promise<string> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SHOAL_')))
  const { stdout } = await execute(process.execPath, [BIN, ...args], { env, timeout: 30_000 })
  return stdout
}

/** What is used of a mirror in `shoal mirrors --json`. */
export interface MirrorLine {
  readonly host: string
  readonly status: string
  readonly failures: number
  readonly requests: number
  readonly bytes: number
}

/** The mirrors of one registry, in order, as `shoal mirrors --json` tells them of a running daemon. */
export async function mirrorsOf(shoal: ShoalProcess, registry: string): Promise<readonly MirrorLine[]> {
  const stdout = await runShoal(['mirrors', '--json', '--set', `state.path=${shoal.state}`])
  const { registries } = JSON.parse(stdout) as { registries: { name: string; mirrors: MirrorLine[] }[] }
  return registries.find(({ name }) => name === registry)?.mirrors ?? []
}

/** The sum of a metric's series that have all these labels; 0 when there is none. */
export async function metricOf(
  shoal: ShoalProcess,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): Promise<number> {
  const text = await (await fetch(`${shoal.health}/metrics`)).text()
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`)
  let sum = 0
  for (const line of text.split('\n')) {
    const [, series, found = '', value] = /^([a-z_]+)(\{.*\})? (\S+)$/.exec(line) ?? []
    if (series === name && wanted.every(label => found.includes(label))) sum += Number(value)
  }
  return sum
}
