import { Command } from 'commander'
import { loadConfig } from '../config/index.ts'
import { silentLogger } from '../core/index.ts'
import { AdminClient } from './admin-client.ts'
import { loadOptions, withConfigOptions, type ConfigFlags } from './config-options.ts'
import type { CommandIo } from './io.ts'
import { humanBytes, humanSeconds } from './progress.ts'

interface Status {
  /** A daemon answers, and not a maintenance command. */
  readonly daemon: boolean
  readonly pid: number
  readonly uptimeSeconds?: number
  readonly store: {
    readonly blobs: number
    readonly bytes: number
    readonly maxBytes: number
    readonly writable: boolean
  }
}

/** `shoal status`: whether a daemon runs, and how full its store is. */
export function statusCommand(io: CommandIo): Command {
  return withConfigOptions(new Command('status'))
    .description('tell whether the daemon runs and how full its store is')
    .option('--json', 'print JSON')
    .action(async (flags: ConfigFlags & { json?: boolean }) => {
      const { config } = await loadConfig(loadOptions(flags, io.env))
      await using admin = await AdminClient.open({ log: silentLogger }, config)
      const status = (await admin.call('GET', '/api/v1/status')) as Status
      if (flags.json === true) {
        io.stdout.write(`${JSON.stringify(status)}\n`)
        return
      }
      const { store, pid, uptimeSeconds = 0 } = status
      const daemon = status.daemon ? `running, pid ${pid}, for ${humanSeconds(uptimeSeconds)}` : 'not running'
      const disk = store.writable ? '' : ', NOT WRITABLE'
      io.stdout.write(
        `daemon: ${daemon}\nstore:  ${store.blobs} blobs, ${humanBytes(store.bytes)} of ${humanBytes(store.maxBytes)}${disk}\n`,
      )
    })
}
