import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { errorCode } from '../../../src/core/index.ts'
import {
  DEFAULT_HOST,
  hostsSignature,
  readHosts,
  type HostsDirectory,
  type HostsEntry,
} from '../../../src/upstream/hosts/index.ts'
import { createTestCa, type TestCa } from '../../support/test-ca.ts'
import { spelled, TestLog } from '../rig.ts'

const NO_TLS = { ca: [], clients: [], skipVerify: false }

let root = ''
let ca: TestCa
let made = 0

before(async () => {
  root = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-hosts-'))
  ca = await createTestCa()
})

after(async () => {
  await fs.rm(root, { recursive: true, force: true })
  await ca[Symbol.asyncDispose]()
})

/** A root with these files in it, by their names; a name that ends in a slash is a directory. */
async function newRoot(files: Readonly<Record<string, string>>): Promise<string> {
  made += 1
  const directory = path.join(root, String(made))
  await fs.mkdir(directory)
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(directory, name)
    await fs.mkdir(name.endsWith('/') ? file : path.dirname(file), { recursive: true })
    if (!name.endsWith('/')) await fs.writeFile(file, text)
  }
  return directory
}

function read(where: string, log = new TestLog()): Promise<HostsDirectory> {
  return readHosts({ log }, { root: where })
}

/** The server of every entry that is in order. */
function servers({ hosts }: HostsDirectory): Record<string, string | undefined> {
  return Object.fromEntries(
    [...hosts].map(([name, entry]) => [name, entry.kind === 'ok' ? entry.server?.host : entry.error.message]),
  )
}

function brokenWith(entry: HostsEntry | undefined, ...texts: readonly string[]): void {
  assert.ok(entry?.kind === 'broken', JSON.stringify(entry))
  assert.equal(errorCode(entry.error), 'ERR_CONFIG_INVALID')
  for (const text of texts) assert.ok(entry.error.message.includes(text), entry.error.message)
}

const serverAt = (host: string): string => `server = "https://${host}"\n`

test('every directory is for the registry that its name says', async () => {
  const directory = await newRoot({
    'plain.example/hosts.toml': serverAt('one'),
    'ported.example_5000_/hosts.toml': serverAt('two'),
    'colon.example:5000/hosts.toml': serverAt('three'),
    '10.0.0.5_5000_/hosts.toml': serverAt('four'),
    '_default/hosts.toml': serverAt('five'),
    'README.md': 'not a directory',
    'no host name!/hosts.toml': serverAt('six'),
  })
  await fs.symlink('plain.example', path.join(directory, 'linked.example'))
  await fs.symlink('nowhere', path.join(directory, 'dangling.example'))
  const found = await read(directory)
  assert.deepEqual(servers(found), {
    'plain.example': 'https://one',
    'linked.example': 'https://one',
    'ported.example:5000': 'https://two',
    'colon.example:5000': 'https://three',
    '10.0.0.5:5000': 'https://four',
    [DEFAULT_HOST]: 'https://five',
  })
})

test('of two directories for one registry the one without a colon counts, even without a file', async () => {
  const directory = await newRoot({
    'r.example:5000/hosts.toml': serverAt('colon'),
    'r.example_5000_/': '',
    '_default/hosts.toml': serverAt('default'),
  })
  assert.equal(servers(await read(directory))['r.example:5000'], undefined)
  await fs.writeFile(path.join(directory, 'r.example_5000_', 'hosts.toml'), serverAt('underscores'))
  assert.equal(servers(await read(directory))['r.example:5000'], 'https://underscores')
})

test('Docker Hub goes by all of its names, its own before the others', async () => {
  const names = ['registry-1.docker.io', 'index.docker.io', 'docker.io']
  const directory = await newRoot({})
  for (const name of names) {
    await fs.mkdir(path.join(directory, name))
    await fs.writeFile(path.join(directory, name, 'hosts.toml'), serverAt(name))
    assert.deepEqual(servers(await read(directory)), { 'docker.io': `https://${name}` })
  }
})

test('of several roots the first that has a directory for a registry counts, its default included', async () => {
  const [one, two, three] = [
    await newRoot({ 'a.example/hosts.toml': serverAt('one') }),
    await newRoot({ 'a.example/hosts.toml': serverAt('two'), '_default/hosts.toml': serverAt('two') }),
    await newRoot({ 'b.example/hosts.toml': serverAt('three') }),
  ]
  assert.deepEqual(servers(await read(`${one}:${path.join(root, 'missing')}:${two}::${three}`)), {
    'a.example': 'https://one',
    [DEFAULT_HOST]: 'https://two',
  })
})

test('a root that does not exist has no registries, one that cannot be read is an error', async () => {
  const log = new TestLog()
  assert.equal((await read(path.join(root, 'missing'), log)).hosts.size, 0)
  assert.match(log.lines.join('\n'), /^no registries in certs\.d .*missing/)
  const file = path.join(await newRoot({ file: '' }), 'file')
  await assert.rejects(
    read(file),
    (error: unknown) =>
      errorCode(error) === 'ERR_CONFIG_INVALID' && spelled(error).includes(`${file} cannot be read (ENOTDIR)`),
  )
})

test('a file that is wrong breaks its own registry only', async () => {
  const directory = await newRoot({
    'good.example/hosts.toml': serverAt('good'),
    'syntax.example/hosts.toml': 'server = \n',
    'value.example/hosts.toml': '\n[host."https://m"]\n  capabilities = ["fetch"]\n',
    'large.example/hosts.toml': '',
    'folder.example/hosts.toml/': '',
    'pipe.example/': '',
    'loop.example/': '',
  })
  const at = (name: string): string => path.join(directory, name, 'hosts.toml')
  await fs.truncate(at('large.example'), 1024 * 1024 + 1)
  await promisify(execFile)('mkfifo', [at('pipe.example')])
  await fs.symlink('hosts.toml', at('loop.example'))
  await fs.symlink('circle.example', path.join(directory, 'circle.example'))
  const { hosts } = await read(directory)
  assert.deepEqual(hosts.get('good.example'), {
    kind: 'ok',
    file: at('good.example'),
    mirrors: [],
    server: {
      host: 'https://good',
      overridePath: false,
      headers: {},
      tls: NO_TLS,
      capabilities: ['pull', 'resolve'],
    },
  })
  brokenWith(hosts.get('syntax.example'), `${at('syntax.example')}:1:`)
  brokenWith(hosts.get('value.example'), `${at('value.example')}:3: host."https://m".capabilities`)
  brokenWith(hosts.get('large.example'), at('large.example'), 'larger than 1048576 bytes')
  brokenWith(hosts.get('folder.example'), at('folder.example'), 'not a file')
  brokenWith(hosts.get('pipe.example'), at('pipe.example'), 'not a file')
  brokenWith(hosts.get('loop.example'), at('loop.example'), 'ELOOP')
  brokenWith(hosts.get('circle.example'), at('circle.example'), 'ELOOP')
  assert.equal(hosts.size, 7 + 1)
})

test('unknown keys are logged once each, with file and line, and without values', async () => {
  const directory = await newRoot({ 'r.example/hosts.toml': 'sever = "SECRET"\n[host."https://m"]\npriority = 1\n' })
  const log = new TestLog()
  const { hosts } = await read(directory, log)
  const file = path.join(directory, 'r.example', 'hosts.toml')
  assert.deepEqual(log.lines, [
    `unknown key in hosts.toml ignored ${JSON.stringify({ file, line: 1, key: 'sever' })}`,
    `unknown key in hosts.toml ignored ${JSON.stringify({ file, line: 3, key: 'host."https://m".priority' })}`,
  ])
  assert.equal(hosts.get('r.example')?.kind, 'ok')
})

test('without a file the certificates in the directory are for the registry itself, as with Docker', async () => {
  const leaf = await ca.issue()
  const directory = await newRoot({
    'r.example/ca.crt': ca.ca,
    'r.example/me.cert': leaf.cert,
    'r.example/me.key': leaf.key,
    'r.example/notes.txt': '',
    'empty.example/hosts.toml': '',
    'empty.example/ca.crt': ca.ca,
    'none.example/': '',
  })
  const { hosts } = await read(directory)
  const here = path.join(directory, 'r.example')
  const tls = {
    ca: [path.join(here, 'ca.crt')],
    clients: [{ cert: path.join(here, 'me.cert'), key: path.join(here, 'me.key') }],
    skipVerify: false,
  }
  const target = { overridePath: false, headers: {}, capabilities: ['pull', 'resolve'] }
  assert.deepEqual(hosts.get('r.example'), { kind: 'ok', file: here, mirrors: [], server: { ...target, tls } })
  const empty = path.join(directory, 'empty.example')
  assert.deepEqual(hosts.get('empty.example'), {
    kind: 'ok',
    file: empty,
    mirrors: [],
    server: { ...target, tls: { ...NO_TLS, ca: [path.join(empty, 'ca.crt')] } },
  })
  const none = path.join(directory, 'none.example')
  assert.deepEqual(hosts.get('none.example'), { kind: 'ok', file: none, mirrors: [] })
})

test('certificates that cannot be used break their registry, and are named', async () => {
  const leaf = await ca.issue()
  const other = await ca.issue()
  const directory = await newRoot({
    'missing.example/hosts.toml': '[host."https://m"]\n  ca = "missing.pem"\n',
    'garbage.example/hosts.toml': 'server = "https://r"\nca = "garbage.pem"\n',
    'garbage.example/garbage.pem': 'no certificate',
    'pair.example/hosts.toml': '[host."https://m"]\nclient = [["me.cert", "me.key"]]\n',
    'pair.example/me.cert': leaf.cert,
    'pair.example/me.key': other.key,
    'keyless.example/me.cert': leaf.cert,
    'both.example/hosts.toml': '[host."https://m"]\nclient = "both.pem"\n',
    'both.example/both.pem': `${leaf.cert}${leaf.key}`,
  })
  const { hosts } = await read(directory)
  const at = (...names: readonly string[]): string => path.join(directory, ...names)
  const missing = at('missing.example', 'missing.pem')
  brokenWith(hosts.get('missing.example'), `hosts.toml:2: host."https://m".ca: ${missing}`, 'ENOENT')
  brokenWith(hosts.get('garbage.example'), 'hosts.toml:2: ca: ', at('garbage.example', 'garbage.pem'))
  brokenWith(
    hosts.get('pair.example'),
    'hosts.toml:2: host."https://m".client: ',
    at('pair.example', 'me.cert'),
    'me.key',
  )
  brokenWith(hosts.get('keyless.example'), at('keyless.example', 'me.key'), 'ENOENT')
  assert.equal(hosts.get('both.example')?.kind, 'ok')
})

test('a registry on this machine speaks plain HTTP, unless its port or its certificates say otherwise', async () => {
  const directory = await newRoot({
    'localhost_5000_/hosts.toml': '[host."https://m"]\n',
    'localhost_443_/': '',
    'localhost/': '',
    '127.0.0.1_80_/': '',
    'localhost_5001_/ca.crt': ca.ca,
    'localhost_5002_/hosts.toml': serverAt('elsewhere'),
    'remote.example_5000_/': '',
  })
  const { hosts } = await read(directory)
  const found = [...hosts].map(([name, entry]) => [
    name,
    entry.kind === 'ok' ? entry.server?.host : entry.error.message,
    entry.kind === 'ok' ? entry.server?.tls.skipVerify : undefined,
  ])
  assert.deepEqual(
    found.sort(([a], [b]) => (String(a) < String(b) ? -1 : 1)),
    [
      ['127.0.0.1:80', 'http://127.0.0.1:80', true],
      ['localhost', 'https://localhost', true],
      ['localhost:443', 'https://localhost:443', true],
      ['localhost:5000', 'http://localhost:5000', true],
      ['localhost:5001', 'https://localhost:5001', false],
      ['localhost:5002', 'https://elsewhere', false],
      ['remote.example:5000', undefined, undefined],
    ],
  )
})

test('the signature changes with whatever a reading depends on, and with nothing else', async () => {
  const outside = await newRoot({ 'ca.pem': ca.ca })
  const directory = await newRoot({
    'r.example/hosts.toml': `ca = "${outside}/ca.pem"\n[host."https://m"]\nclient = "me.pem"\n`,
    'docker.example/': '',
  })
  const steps: Record<string, () => Promise<unknown>> = {
    'a hosts.toml': () => fs.appendFile(path.join(directory, 'r.example', 'hosts.toml'), 'skip_verify = true\n'),
    'a new registry': () => fs.mkdir(path.join(directory, 'new.example')),
    'a hosts.toml where none was': () => fs.writeFile(path.join(directory, 'new.example', 'hosts.toml'), ''),
    'an authority outside': () => fs.appendFile(path.join(outside, 'ca.pem'), '\n'),
    'a certificate that was missing': () => fs.writeFile(path.join(directory, 'r.example', 'me.pem'), ''),
    'a certificate as Docker wants it': () => fs.writeFile(path.join(directory, 'docker.example', 'a.crt'), ca.ca),
    'the text of that': () => fs.writeFile(path.join(directory, 'docker.example', 'a.crt'), `${ca.ca}\n`),
    'the rights to a file': () => fs.chmod(path.join(directory, 'r.example', 'hosts.toml'), 0o600),
    'a registry less': () => fs.rm(path.join(directory, 'r.example'), { recursive: true }),
    'no root': () => fs.rm(directory, { recursive: true }),
    'a file for a root': () => fs.writeFile(directory, ''),
  }
  let last = await hostsSignature({ root: directory })
  for (const [what, change] of Object.entries(steps)) {
    assert.equal(await hostsSignature({ root: directory }), last, `before ${what}`)
    await change()
    const next = await hostsSignature({ root: directory })
    assert.notEqual(next, last, what)
    last = next
  }
})

test('the files that matter are told, those included that are not there', async () => {
  const directory = await newRoot({ 'r.example/hosts.toml': '[host."https://m"]\nca = "missing.pem"\n' })
  const { files } = await read(directory)
  const here = path.join(directory, 'r.example')
  assert.deepEqual(files, [directory, here, path.join(here, 'hosts.toml'), path.join(here, 'missing.pem')])
})
