import { Command } from 'commander'
import { loadConfig } from '../config/index.ts'
import { silentLogger } from '../core/index.ts'
import { AdminClient } from './admin-client.ts'
import { loadOptions, withConfigOptions, type ConfigFlags } from './config-options.ts'
import type { CommandIo } from './io.ts'
import { formatTable } from './table.ts'

interface MirrorLine {
  readonly host: string
  readonly kind: string
  readonly status: string
  readonly failures: number
  readonly failureLimit: number
  readonly since: number
  readonly lastError?: string
}

interface RegistryLine {
  readonly name: string
  readonly mirrors: readonly MirrorLine[]
  readonly proxy?: MirrorLine
}

const COLUMNS = [
  { title: 'REGISTRY' },
  { title: 'HOST' },
  { title: 'KIND' },
  { title: 'STATUS' },
  { title: 'FAILURES', align: 'right' },
  { title: 'SINCE' },
  { title: 'LAST ERROR' },
] as const

/** `shoal mirrors`: how the mirrors and upstream proxies of each registry are doing, as the running daemon sees them. */
export function mirrorsCommand(io: CommandIo): Command {
  return withConfigOptions(new Command('mirrors'))
    .description('tell how the mirrors and upstream proxies of the registries are doing')
    .option('--json', 'print JSON')
    .action(async (flags: ConfigFlags & { json?: boolean }) => {
      const { config } = await loadConfig(loadOptions(flags, io.env))
      await using admin = await AdminClient.open({ log: silentLogger }, config)
      const { daemon } = (await admin.call('GET', '/api/v1/status')) as { daemon: boolean }
      const registries = daemon ? await registriesOf(admin) : []
      if (flags.json === true) io.stdout.write(`${JSON.stringify({ daemon, registries })}\n`)
      else io.stdout.write(daemon ? textOf(registries) : 'daemon: not running\n')
    })
}

async function registriesOf(admin: AdminClient): Promise<readonly RegistryLine[]> {
  const answer = (await admin.call('GET', '/api/v1/mirrors')) as { registries: readonly RegistryLine[] }
  return answer.registries
}

function textOf(registries: readonly RegistryLine[]): string {
  const rows = registries.flatMap(({ mirrors, name, proxy }) =>
    [...mirrors, ...(proxy === undefined ? [] : [proxy])].map(mirror => rowOf(name, mirror)),
  )
  return rows.length === 0 ? 'no registry has a mirror or a proxy\n' : formatTable(COLUMNS, rows)
}

function rowOf(registry: string, mirror: MirrorLine): string[] {
  const { failureLimit, failures, host, kind, lastError = '', since, status } = mirror
  return [registry, host, kind, status, `${failures}/${failureLimit}`, new Date(since).toISOString(), lastError]
}
