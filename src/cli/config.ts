import { Command } from 'commander'
import { configSchema, loadConfig, printConfig, type LoadedConfig } from '../config/index.ts'
import { loadOptions, withConfigOptions, type ConfigFlags } from './config-options.ts'
import type { CommandIo } from './io.ts'

/** `shoal config schema|check|print`. */
export function configCommand(io: CommandIo): Command {
  return new Command('config')
    .description('look at the configuration without starting anything')
    .addCommand(schemaCommand(io))
    .addCommand(checkCommand(io))
    .addCommand(printCommand(io))
}

function schemaCommand(io: CommandIo): Command {
  return new Command('schema').description('print the JSON Schema of the configuration').action(() => {
    io.stdout.write(`${JSON.stringify(configSchema(), null, 2)}\n`)
  })
}

function checkCommand(io: CommandIo): Command {
  return withConfigOptions(new Command('check'))
    .description('tell everything that is wrong with the configuration')
    .action(async (flags: ConfigFlags) => {
      const { file } = await load(io, flags)
      io.stdout.write(`${file ?? 'no file, defaults'}: the configuration is valid\n`)
    })
}

function printCommand(io: CommandIo): Command {
  return withConfigOptions(new Command('print'))
    .description('print the effective configuration as TOML; secrets are masked')
    .action(async (flags: ConfigFlags) => {
      const { effective } = await load(io, flags)
      io.stdout.write(printConfig(effective))
    })
}

async function load(io: CommandIo, flags: ConfigFlags): Promise<LoadedConfig> {
  const loaded = await loadConfig(loadOptions(flags, io.env))
  for (const warning of loaded.warnings) io.stderr.write(`warning: ${warning}\n`)
  return loaded
}
