import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { configCommand } from '../../src/cli/config.ts'
import { configSchema, loadConfig, printConfig } from '../../src/config/index.ts'

class Collector extends Writable {
  text = ''

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString()
    done()
  }
}

/** Runs `shoal config ...args` with a configuration file that holds `toml`. */
async function runConfig(args: string[], toml = ''): Promise<{ stdout: string; stderr: string; file: string }> {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-cli-'))
  try {
    const file = path.join(folder, 'shoal.toml')
    await fs.writeFile(file, toml)
    await fs.writeFile(path.join(folder, 'password'), 'hunter2', { mode: 0o600 })
    await fs.chmod(path.join(folder, 'password'), 0o644)
    const [stdout, stderr] = [new Collector(), new Collector()]
    const command = configCommand({ stdout, stderr, env: { SHOAL_CONFIG: file } }).exitOverride()
    await command.parseAsync(args, { from: 'user' })
    return { stdout: stdout.text, stderr: stderr.text, file }
  } finally {
    await fs.rm(folder, { recursive: true })
  }
}

test('config schema prints the JSON Schema', async () => {
  const { stdout } = await runConfig(['schema'])
  assert.deepEqual(JSON.parse(stdout), JSON.parse(JSON.stringify(configSchema())))
})

test('config check names the file that is right', async () => {
  const { stdout, stderr, file } = await runConfig(['check'], 'log.level = "debug"')
  assert.equal(stdout, `${file}: the configuration is valid\n`)
  assert.equal(stderr, '')
})

test('config check throws everything that is wrong', async () => {
  await assert.rejects(runConfig(['check', '--set', 'log.access=perhaps'], 'stor = 1'), {
    code: 'ERR_CONFIG_INVALID',
    message:
      /has 2 problems:\n.*shoal\.toml:1: stor: unknown key.*\n.*--set: log\.access: "perhaps" is not true or false$/,
  })
})

test('config check reads another file when told to', async () => {
  await assert.rejects(runConfig(['check', '--config', '/nonexistent/a.toml']), { code: 'ERR_CONFIG_INVALID' })
})

test('config print prints what is in effect, with warnings beside it and no secret', async () => {
  const toml = '[registries.r]\nusername = "node"\npassword_file = "password"\n'
  const { stdout, stderr } = await runConfig(
    ['print', '--set', 'store.max_bytes=1GiB', '--set', 'log.level=warn'],
    toml,
  )
  assert.match(stdout, /^max_bytes = "1GiB"$/m)
  assert.match(stdout, /^level = "warn"$/m)
  assert.match(stdout, /^# password: \*+$/m)
  assert.match(stderr, /^warning: registries\.r\.password_file: .* is readable by every user of this machine\n$/)
  assert.doesNotMatch(stdout + stderr, /hunter2/)
})

test('config print of no configuration is the defaults', async () => {
  const { stdout } = await runConfig(['print'])
  const { effective } = await loadConfig({ env: {}, defaultFile: '/nonexistent/shoal.toml' })
  assert.equal(stdout, printConfig(effective))
})
