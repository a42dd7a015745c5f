import assert from 'node:assert/strict'
import { loadConfig, type Config, type LoadedConfig, type LoadOptions } from '../../src/config/index.ts'
import { ShoalError } from '../../src/core/index.ts'
import { TempFolder } from './temp-folder.ts'

/** What `tls` is when nothing is said about it. */
export const NO_TLS = { ca: [], clients: [], skipVerify: false }

/** Loads without looking at this machine: no environment, and no file in the system's place. */
export function load(options: LoadOptions = {}): Promise<LoadedConfig> {
  return loadConfig({ env: {}, defaultFile: '/nonexistent/shoal.toml', isRoot: true, ...options })
}

export async function loadToml(toml: string, options: LoadOptions = {}): Promise<Config> {
  await using folder = await TempFolder.open()
  return (await load({ file: await folder.write('shoal.toml', toml), ...options })).config
}

/** What is said about a configuration, without the title and the indentation. FILE stands for the file's path. */
export async function complaints(toml: string, options: LoadOptions = {}): Promise<string[]> {
  await using folder = await TempFolder.open()
  const file = await folder.write('shoal.toml', toml)
  const error: unknown = await load({ file, ...options }).then(
    () => assert.fail('it was accepted'),
    (reason: unknown) => reason,
  )
  assert.ok(error instanceof ShoalError)
  assert.equal(error.code, 'ERR_CONFIG_INVALID')
  const [, ...lines] = error.message.split('\n')
  return (lines.length > 0 ? lines : [error.message]).map(line => line.trim().replaceAll(file, 'FILE'))
}
