import { Command } from 'commander'
import { loadConfig, parseSize } from '../config/index.ts'
import { ShoalError, parseDigest, silentLogger } from '../core/index.ts'
import { AdminClient } from './admin-client.ts'
import { loadOptions, withConfigOptions, type ConfigFlags } from './config-options.ts'
import type { CommandIo } from './io.ts'
import { humanBytes, openProgress, silentProgress } from './progress.ts'
import { formatTable } from './table.ts'

interface CacheFlags extends ConfigFlags {
  readonly json?: boolean
}

interface BlobLine {
  readonly digest: string
  readonly size: number
  readonly presentBytes: number
  readonly state: string
  readonly accessed: number
  readonly pinned: boolean
}

interface VerifyLine {
  readonly progress?: { readonly checkedBytes: number; readonly totalBytes: number; readonly badBlocks: number }
  readonly report?: { readonly checkedBytes: number; readonly badBlocks: number; readonly checkedBlobs?: number }
  readonly error?: string
}

/** `shoal cache ls|rm|gc|verify|pin`: through the running daemon's admin socket, or on the store itself when none runs. */
export function cacheCommand(io: CommandIo): Command {
  return new Command('cache')
    .description('look into the chunk store and clean it')
    .addCommand(listCommand(io))
    .addCommand(removeCommand(io))
    .addCommand(collectCommand(io))
    .addCommand(verifyCommand(io))
    .addCommand(pinCommand(io))
}

function listCommand(io: CommandIo): Command {
  return subcommand('ls')
    .description('list the blobs, most recently used first')
    .action(async (flags: CacheFlags) => {
      await using admin = await connect(io, flags)
      const blobs: BlobLine[] = []
      for await (const line of admin.lines('GET', '/api/v1/cache/blobs')) {
        if (flags.json === true) printJson(io, line)
        else blobs.push(line as BlobLine)
      }
      if (flags.json === true) return
      blobs.sort((a, b) => b.accessed - a.accessed)
      const columns = [
        { title: 'DIGEST' },
        { title: 'SIZE', align: 'right' },
        { title: 'HERE', align: 'right' },
        { title: 'STATE' },
        { title: 'USED' },
      ] as const
      io.stdout.write(formatTable(columns, blobs.map(rowOf)))
    })
}

function rowOf(blob: BlobLine): string[] {
  const here = blob.size === 0 ? 100 : Math.floor((blob.presentBytes * 100) / blob.size)
  const state = blob.pinned ? `${blob.state}, pinned` : blob.state
  return [blob.digest, humanBytes(blob.size), `${here} %`, state, new Date(blob.accessed).toISOString()]
}

function removeCommand(io: CommandIo): Command {
  return subcommand('rm')
    .description('remove blobs; bytes that are being read go when their last reader leaves')
    .argument('<digest...>')
    .action(async (digests: string[], flags: CacheFlags) => {
      await using admin = await connect(io, flags)
      for (const digest of digests.map(parseDigest)) {
        const { freedBytes } = (await admin.call('DELETE', `/api/v1/cache/blobs/${digest}`)) as { freedBytes: number }
        if (flags.json === true) printJson(io, { digest, freedBytes })
        else io.stdout.write(`${digest} removed, ${humanBytes(freedBytes)}\n`)
      }
    })
}

function collectCommand(io: CommandIo): Command {
  return subcommand('gc')
    .description('evict the least recently used blobs, and delete what no index row knows')
    .option('--target <size>', 'evict until at most this much is left, for example 10GiB (default: store.max_bytes)')
    .action(async (flags: CacheFlags & { target?: string }) => {
      const target = flags.target === undefined ? undefined : parseTarget(flags.target)
      await using admin = await connect(io, flags)
      const freed = (await admin.call(
        'POST',
        '/api/v1/cache/gc',
        target === undefined ? {} : { targetBytes: target },
      )) as {
        blobs: number
        bytes: number
      }
      if (flags.json === true) printJson(io, freed)
      else io.stdout.write(`${freed.blobs} blobs evicted, ${humanBytes(freed.bytes)} freed\n`)
    })
}

function verifyCommand(io: CommandIo): Command {
  return subcommand('verify')
    .description('check the crc32 of every block; bad ones become missing and are fetched again when asked for')
    .argument('[digest...]', 'only these blobs')
    .option('--no-repair', 'only report')
    .action(async (digests: string[], flags: CacheFlags & { repair: boolean }) => {
      const chosen = digests.map(parseDigest)
      await using admin = await connect(io, flags)
      const progress = flags.json === true ? silentProgress : openProgress(io.stderr, { label: 'verify' })
      const body = { repair: flags.repair, ...(chosen.length > 0 ? { digests: chosen } : {}) }
      for await (const item of admin.lines('POST', '/api/v1/cache/verify', body)) {
        const line = item as VerifyLine
        if (line.progress !== undefined) progress.update(line.progress.checkedBytes, line.progress.totalBytes)
        if (line.error !== undefined) throw new ShoalError('ERR_STORE_IO', line.error)
        if (line.report === undefined) continue
        progress.finish()
        if (flags.json === true) printJson(io, line.report)
        else io.stdout.write(`${humanBytes(line.report.checkedBytes)} checked, ${line.report.badBlocks} bad blocks\n`)
      }
    })
}

function pinCommand(io: CommandIo): Command {
  return subcommand('pin')
    .description('keep blobs from being evicted')
    .argument('<digest...>')
    .option('--remove', 'let them be evicted again')
    .action(async (digests: string[], flags: CacheFlags & { remove?: boolean }) => {
      const pinned = flags.remove !== true
      await using admin = await connect(io, flags)
      for (const digest of digests.map(parseDigest)) {
        await admin.call('PUT', `/api/v1/cache/blobs/${digest}/pin`, { pinned })
        if (flags.json === true) printJson(io, { digest, pinned })
        else io.stdout.write(`${digest} ${pinned ? 'pinned' : 'no longer pinned'}\n`)
      }
    })
}

function subcommand(name: string): Command {
  return withConfigOptions(new Command(name)).option('--json', 'print JSON lines')
}

async function connect(io: CommandIo, flags: ConfigFlags): Promise<AdminClient> {
  const { config } = await loadConfig(loadOptions(flags, io.env))
  return AdminClient.open({ log: silentLogger }, config)
}

function parseTarget(text: string): number {
  const bytes = parseSize(text)
  if (bytes !== undefined) return bytes
  throw new ShoalError('ERR_CONFIG_INVALID', `--target: "${text}" is not a size such as 10GiB`)
}

function printJson(io: CommandIo, value: unknown): void {
  io.stdout.write(`${JSON.stringify(value)}\n`)
}
