import { Command } from 'commander'
import { loadConfig, needingRestart, type Config, type LoadOptions } from '../config/index.ts'
import { Scope, type Logger } from '../core/index.ts'
import { Daemon } from '../daemon.ts'
import type { CommandIo } from './io.ts'
import { FileWatch } from './file-watch.ts'
import { loadOptions, sameFile, withConfigOptions, type ConfigFlags } from './config-options.ts'

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
    .description(
      'run the mirror until SIGTERM; SIGHUP or a changed file reloads registries, origins, credentials and proxy rules',
    )
    .action(async (flags: ConfigFlags) => {
      runtime.prepare()
      const options = loadOptions(flags, io.env)
      const { config, file, files, warnings } = await loadConfig(options)
      const log = runtime.openLog({ level: config.log.level })
      for (const warning of warnings) log.warn({ file }, warning)
      await using scope = new Scope()
      scope.defer(() => log.flush())
      const opening = Daemon.open({ log, uptimeMs: () => performance.now() }, config)
      const again = sameFile(options, file)
      // One after the other, so that the newest is the last.
      let reloads = Promise.resolve()
      const reload = (): void =>
        void (reloads = reloads.then(() => reloadConfig({ opening, log, watch, started: config }, again)))
      const watch = scope.use(new FileWatch(reload))
      // Without a listener a hangup ends the process, and it may come while the daemon starts, or drains.
      scope.defer(runtime.onHangup(reload))
      scope.use(await opening)
      scope.defer(() => reloads)
      watch.set(files)
      log.info({ signal: await runtime.terminated() }, 'draining')
    })
}

interface Serving {
  readonly opening: Promise<Daemon>
  readonly log: ServeLog
  readonly watch: FileWatch
  /** What the daemon was started with. */
  readonly started: Config
}

/** Never rejects: a bad new file leaves the old configuration in force, and the log says so. */
async function reloadConfig({ opening, log, watch, started }: Serving, options: LoadOptions): Promise<void> {
  try {
    const { config, file, files, warnings } = await loadConfig(options)
    for (const warning of warnings) log.warn({ file }, warning)
    await (await opening).reload(config)
    watch.set(files)
    log.level = config.log.level
    log.info({ file }, 'configuration reloaded')
    const waiting = needingRestart(started, config)
    if (waiting.length > 0) log.warn({ keys: waiting }, 'changed keys that take a restart')
  } catch (error: unknown) {
    log.error({ err: error }, 'new configuration refused, the old one stays')
  }
}
