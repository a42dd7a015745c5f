import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { errorCode } from '../../../src/core/index.ts'
import { readDockerConfig } from '../../../src/upstream/index.ts'
import { spelled, TestLog } from '../rig.ts'

let directory = ''

before(async () => {
  directory = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-keychain-'))
})

after(() => fs.rm(directory, { recursive: true, force: true }))

function base64(text: string): string {
  return Buffer.from(text).toString('base64')
}

async function write(name: string, content: unknown): Promise<string> {
  const file = path.join(directory, name)
  await fs.writeFile(file, typeof content === 'string' ? content : JSON.stringify(content))
  return file
}

test('credentials are found by the name of the registry, however docker spelt it', async () => {
  const file = await write('all.json', {
    auths: {
      'https://index.docker.io/v1/': { auth: base64('hub:with:colons') },
      'registry.corp.test:5000': { username: 'plain', password: 'text' },
      'https://Ghcr.io/v2/': { auth: base64('gh:token\0\0') },
    },
  })
  const keychain = await readDockerConfig({ log: new TestLog() }, { file })
  assert.deepEqual(keychain.get('docker.io'), { username: 'hub', password: 'with:colons' })
  assert.deepEqual(keychain.get('registry-1.docker.io'), { username: 'hub', password: 'with:colons' })
  assert.deepEqual(keychain.get('registry.corp.test:5000'), { username: 'plain', password: 'text' })
  assert.deepEqual(keychain.get('ghcr.io'), { username: 'gh', password: 'token' })
  assert.equal(keychain.get('registry.corp.test'), undefined)
  assert.equal(keychain.get('not a host'), undefined)
})

test('entries without a usable password are passed over', async () => {
  const file = await write('partial.json', {
    auths: {
      'a.test': {},
      'b.test': { auth: base64('nocolon') },
      'c.test': { auth: base64('user:') },
      'd.test': { username: 'only' },
      'e.test': 'text',
      'f.test': { identitytoken: 'x', auth: '' },
      'a b': { auth: base64('u:p') },
    },
    credsStore: 'desktop',
  })
  const keychain = await readDockerConfig({ log: new TestLog() }, { file })
  for (const name of ['a.test', 'b.test', 'c.test', 'd.test', 'e.test', 'f.test']) {
    assert.equal(keychain.get(name), undefined, name)
  }
})

test('the default file is the one docker uses, and its absence means no credentials', async () => {
  await write('config.json', { auths: { 'x.test': { auth: base64('u:p') } } })
  const log = new TestLog()
  const found = await readDockerConfig({ log, env: { DOCKER_CONFIG: directory } }, { file: '' })
  assert.deepEqual(found.get('x.test'), { username: 'u', password: 'p' })
  const missing = await readDockerConfig({ log, env: { HOME: path.join(directory, 'nobody') } }, { file: '' })
  assert.equal(missing.get('x.test'), undefined)
  assert.deepEqual(log.lines, [])
})

test('a default file that cannot be used is said so and ignored, without quoting it', async () => {
  const home = path.join(directory, 'home')
  await fs.mkdir(path.join(home, '.docker'), { recursive: true })
  await fs.writeFile(path.join(home, '.docker', 'config.json'), '{"auths":{"x":{"auth":"c2VjcmV0"')
  const log = new TestLog()
  const keychain = await readDockerConfig({ log, env: { HOME: home } }, { file: '' })
  assert.equal(keychain.get('x'), undefined)
  assert.equal(log.lines.length, 1)
  assert.match(log.lines[0]!, /docker config not used/)
  assert.doesNotMatch(log.lines[0]!, /c2Vj/)
})

test('a file that was named must be there and be usable', async () => {
  const files = [
    path.join(directory, 'missing.json'),
    await write('broken.json', '{"auths":{"x":{"auth":"c2VjcmV0"'),
    await write('odd.json', { auths: [] }),
    await write('text.json', '"text"'),
  ]
  for (const file of files) {
    await assert.rejects(readDockerConfig({ log: new TestLog() }, { file }), (error: unknown) => {
      assert.equal(errorCode(error), 'ERR_CONFIG_INVALID')
      assert.ok(spelled(error).includes(file))
      assert.ok(!spelled(error).includes('c2Vj'))
      return true
    })
  }
})
