#!/usr/bin/env node
import v8 from 'node:v8'
import { Command, CommanderError } from 'commander'
import {
  cacheCommand,
  configCommand,
  mirrorsCommand,
  proxyCaCommand,
  serveCommand,
  statusCommand,
  type CommandIo,
  type ServeRuntime,
} from './cli/index.ts'
import { ERROR_TABLE, ShoalError, describeError } from './core/index.ts'
import { openLogger } from './observability/index.ts'

/** Conventional exit codes (sysexits.h): usage 64, unavailable 69, internal 70, configuration 78. */
const EXIT = { usage: 64, unavailable: 69, internal: 70, config: 78 } as const

const io: CommandIo = { stdout: process.stdout, stderr: process.stderr, env: process.env }

/** V8's limit for the heap with its buffers, over what is live, in percent: docs/decisions/0007. */
const HEAP_GROWING_PERCENT = 400

const runtime: ServeRuntime = {
  prepare: () => v8.setFlagsFromString(`--heap-growing-percent=${HEAP_GROWING_PERCENT}`),
  openLog: openLogger,
  terminated: () =>
    new Promise(resolve => {
      let asked = false
      const terminate = (signal: NodeJS.Signals): void => {
        // A second signal skips the waiting.
        if (asked) process.exit(EXIT.unavailable)
        asked = true
        resolve(signal)
      }
      process.on('SIGTERM', terminate)
      process.on('SIGINT', terminate)
    }),
  onHangup: listener => {
    process.on('SIGHUP', listener)
    return () => process.off('SIGHUP', listener)
  },
}

const program = new Command('shoal')
  .description('node-local mirror for container image blobs')
  .exitOverride()
  .addCommand(serveCommand(io, runtime))
  .addCommand(statusCommand(io))
  .addCommand(cacheCommand(io))
  .addCommand(mirrorsCommand(io))
  .addCommand(proxyCaCommand(io))
  .addCommand(configCommand(io))
for (const command of program.commands) inheritExit(command)

try {
  await program.parseAsync()
} catch (error: unknown) {
  process.exitCode = report(error)
}

function inheritExit(command: Command): void {
  command.exitOverride()
  for (const child of command.commands) inheritExit(child)
}

function report(error: unknown): number {
  // commander has printed its own message.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT.usage
  io.stderr.write(`shoal: ${describeError(error)}\n`)
  if (!(error instanceof ShoalError)) return EXIT.internal
  if (error.code === 'ERR_CONFIG_INVALID') return EXIT.config
  return ERROR_TABLE[error.code].retryable || error.code === 'ERR_STORE_LOCKED' ? EXIT.unavailable : EXIT.usage
}
