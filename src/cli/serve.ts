import { watchFile, unwatchFile } from 'node:fs'
import { Command } from 'commander'
import { loadConfig, type LoadOptions } from '../config/index.ts'
import { Scope, type Logger } from '../core/index.ts'
import { Daemon } from '../daemon.ts'
import type { CommandIo } from './io.ts'
import { loadOptions, withConfigOptions, type ConfigFlags } from './config-options.ts'

/** How often a changed configuration file is looked for. */
const WATCH_INTERVAL_MS = 2000

/** A log whose level can change, and whose last lines can be written out before the process ends. */
export interface ServeLog extends Logger {
  level: string
  flush(): void
}

/** What main.ts alone may touch: the log's sink and the process's signals. */
export interface ServeRuntime {
  /** Sets up the process for streaming, before anything else. */
  prepare(): void
  openLog(options: { level: string }): ServeLog
  /** Resolves at the first SIGTERM or SIGINT. */
  terminated(): Promise<string>
  /** Calls back at every SIGHUP; returns what stops that. */
  onHangup(listener: () => void): () => void
}

export function serveCommand(io: CommandIo, runtime: ServeRuntime): Command {
  return withConfigOptions(new Command('serve'))
    .description('run the mirror until SIGTERM; SIGHUP or a changed file reloads registries, origins and credentials')
    .action(async (flags: ConfigFlags) => {
      runtime.prepare()
      const options = loadOptions(flags, io.env)
      const { config, file, warnings } = await loadConfig(options)
      const log = runtime.openLog({ level: config.log.level })
      for (const warning of warnings) log.warn({ file }, warning)
      await using scope = new Scope()
      scope.defer(() => log.flush())
      const daemon = scope.use(await Daemon.open({ log, uptimeMs: () => performance.now() }, config))
      const reload = (): void => void reloadConfig(daemon, log, options)
      scope.defer(runtime.onHangup(reload))
      if (file !== undefined) {
        watchFile(file, { interval: WATCH_INTERVAL_MS }, reload)
        scope.defer(() => unwatchFile(file))
      }
      log.info({ signal: await runtime.terminated() }, 'draining')
    })
}

/** Never rejects: a bad new file leaves the old configuration in force, and the log says so. */
async function reloadConfig(daemon: Daemon, log: ServeLog, options: LoadOptions): Promise<void> {
  try {
    const { config, file, warnings } = await loadConfig(options)
    for (const warning of warnings) log.warn({ file }, warning)
    await daemon.reload(config)
    log.level = config.log.level
    log.info({ file }, 'configuration reloaded')
  } catch (error: unknown) {
    log.error({ err: error }, 'new configuration refused, the old one stays')
  }
}
