import { Option, type Command } from 'commander'
import type { LoadOptions } from '../config/index.ts'

/** Flags of every command that reads the configuration. */
export interface ConfigFlags {
  readonly config?: string
  readonly set?: readonly string[]
}

/** Adds --config and --set. */
export function withConfigOptions(command: Command): Command {
  return command
    .addOption(new Option('--config <file>', 'configuration file (default: $SHOAL_CONFIG, then /etc/shoal/shoal.toml)'))
    .addOption(
      new Option('--set <key=value>', 'override one key, for example store.max_bytes=10GiB; may be repeated').argParser(
        collect,
      ),
    )
}

export function loadOptions(flags: ConfigFlags, env: NodeJS.ProcessEnv): LoadOptions {
  const { config, set } = flags
  return { env, ...(config === undefined ? {} : { file: config }), ...(set === undefined ? {} : { set }) }
}

/** For reading again what came from `file`: that it is away for a moment, while somebody writes it, does not mean that there is none. */
export function sameFile(options: LoadOptions, file: string | undefined): LoadOptions {
  return file === undefined ? options : { ...options, file }
}

function collect(value: string, previous: readonly string[] | undefined): readonly string[] {
  return [...(previous ?? []), value]
}
