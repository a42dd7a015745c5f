import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import fs from 'node:fs/promises'
import path from 'node:path'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { proxyCaCommand } from '../../src/cli/proxy-ca.ts'
import { temporaryDirectory } from '../support/tools.ts'

class Collector extends Writable {
  text = ''

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString()
    done()
  }
}

/** Runs `shoal proxy-ca ...args` with a state directory. */
async function runProxyCa(state: string, args: string[]): Promise<{ stdout: string; stderr: string }> {
  const [stdout, stderr] = [new Collector(), new Collector()]
  const command = proxyCaCommand({ stdout, stderr, env: {} }).exitOverride()
  const file = path.join(state, 'shoal.toml')
  await fs.writeFile(file, `state.path = ${JSON.stringify(state)}\n`)
  await command.parseAsync([...args, '--config', file], { from: 'user' })
  return { stdout: stdout.text, stderr: stderr.text }
}

test('proxy-ca init makes an authority, and another one only by force', async () => {
  await using state = await temporaryDirectory()
  const { stdout } = await runProxyCa(state.path, ['init'])
  const directory = path.join(state.path, 'proxy-ca')
  const certificate = new X509Certificate(await fs.readFile(path.join(directory, 'ca.crt')))
  assert.equal(stdout, `${path.join(directory, 'ca.crt')}\nSHA-256 ${certificate.fingerprint256}\n`)
  assert.equal((await fs.stat(path.join(directory, 'ca.key'))).mode & 0o777, 0o600)
  await assert.rejects(runProxyCa(state.path, ['init']), { code: 'ERR_CONFIG_INVALID', message: /--force/ })
  const second = await runProxyCa(state.path, ['init', '--force'])
  assert.notEqual(second.stdout, stdout)
})

test('proxy-ca show prints the certificate and nothing else, with advice beside it', async () => {
  await using state = await temporaryDirectory()
  await runProxyCa(state.path, ['init'])
  const { stdout, stderr } = await runProxyCa(state.path, ['show'])
  const file = path.join(state.path, 'proxy-ca', 'ca.crt')
  assert.equal(stdout, await fs.readFile(file, 'utf8'))
  assert.match(stderr, /update-ca-certificates/)
  assert.match(stderr, /certs\.d/)
  assert.ok(stderr.includes(file))
  const { stdout: fingerprint, stderr: quiet } = await runProxyCa(state.path, ['show', '--fingerprint'])
  assert.equal(fingerprint, `${new X509Certificate(stdout).fingerprint256}\n`)
  assert.equal(quiet, '')
})

test('proxy-ca show without an authority says how to make one', async () => {
  await using state = await temporaryDirectory()
  await assert.rejects(runProxyCa(state.path, ['show']), {
    code: 'ERR_CONFIG_INVALID',
    message: /"shoal proxy-ca init"/,
  })
})

test('proxy-ca tells what is odd about the configuration', async () => {
  await using state = await temporaryDirectory()
  const password = path.join(state.path, 'password')
  await fs.writeFile(password, 'hunter2')
  await fs.chmod(password, 0o644)
  const settings = ['--set', 'registries.r.username=node', '--set', `registries.r.password_file=${password}`]
  const { stderr } = await runProxyCa(state.path, ['init', ...settings])
  assert.match(stderr, /^warning: .* is readable by every user/)
})
