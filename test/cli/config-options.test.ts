import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import { test } from 'node:test'
import { loadOptions, sameFile } from '../../src/cli/config-options.ts'
import { loadConfig } from '../../src/config/index.ts'
import { TempFolder } from '../config/temp-folder.ts'

test('a file that was there and is away for a moment is not taken for none', async () => {
  await using folder = await TempFolder.open()
  const defaultFile = await folder.write('shoal.toml', '[mirror]\ndefault_registry = "a.test"\n')
  const options = { ...loadOptions({}, {}), defaultFile }
  const { config, file } = await loadConfig(options)
  assert.equal(config.mirror.defaultRegistry, 'a.test')
  await fs.rm(defaultFile)
  assert.equal((await loadConfig(options)).file, undefined)
  await assert.rejects(loadConfig(sameFile(options, file)), { code: 'ERR_CONFIG_INVALID', message: /no such file/ })
})

test('without a file the places where one may be are looked at again', async () => {
  await using folder = await TempFolder.open()
  const options = { ...loadOptions({}, {}), defaultFile: `${folder.path}/shoal.toml` }
  const { file } = await loadConfig(options)
  await folder.write('shoal.toml', '[mirror]\ndefault_registry = "a.test"\n')
  assert.equal((await loadConfig(sameFile(options, file))).config.mirror.defaultRegistry, 'a.test')
})
