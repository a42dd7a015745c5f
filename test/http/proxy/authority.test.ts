import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import fs from 'node:fs/promises'
import net from 'node:net'
import path from 'node:path'
import { test } from 'node:test'
import tls, { type SecureContext } from 'node:tls'
import { systemClock, type Clock } from '../../../src/core/index.ts'
import { initProxyAuthority, readProxyAuthority } from '../../../src/http/proxy/authority-files.ts'
import { CertificateAuthority } from '../../../src/http/proxy/authority.ts'
import { run } from '../../support/child.ts'
import { createTestCa } from '../../support/test-ca.ts'
import { skipWithout, temporaryDirectory } from '../../support/tools.ts'
import { listen } from './proxy-rig.ts'

const DAY_MS = 24 * 3600_000
const WITHOUT_OPENSSL = { skip: await skipWithout(['openssl']) }

/** The certificate that a server with this context shows to a client that trusts `ca` and means `host`. */
async function shown(secureContext: SecureContext, ca: string, host: string): Promise<X509Certificate> {
  const server = await listen(
    net.createServer(socket =>
      new tls.TLSSocket(socket, { isServer: true, secureContext }).on('error', () => undefined),
    ),
  )
  try {
    const client = tls.connect({
      port: server.port,
      host: '127.0.0.1',
      ca,
      ...(net.isIP(host) === 0 ? { servername: host } : {}),
      checkServerIdentity: (_name, certificate) => tls.checkServerIdentity(host, certificate),
    })
    await once(client, 'secureConnect')
    const certificate = client.getPeerX509Certificate()
    client.destroy()
    assert.ok(certificate)
    return certificate
  } finally {
    await server.close()
  }
}

function clockAt(start: number): Clock & { time: number } {
  const clock = { ...systemClock, time: start, now: () => clock.time }
  return clock
}

test('an authority is made once, for its owner only, and read again', async () => {
  await using folder = await temporaryDirectory()
  const directory = path.join(folder.path, 'state', 'proxy-ca')
  const made = await initProxyAuthority({ clock: systemClock }, { directory })
  assert.deepEqual((await fs.readdir(directory)).sort(), ['ca.crt', 'ca.key'])
  assert.equal((await fs.stat(path.join(directory, 'ca.key'))).mode & 0o777, 0o600)
  assert.equal((await fs.stat(directory)).mode & 0o777, 0o700)
  assert.equal(made.file, path.join(directory, 'ca.crt'))
  assert.equal(made.certificate, await fs.readFile(made.file, 'utf8'))
  assert.match(made.certificate, /^-----BEGIN CERTIFICATE-----\n[^]*-----END CERTIFICATE-----\n$/)
  assert.deepEqual(await readProxyAuthority({ directory }), made)
  const authority = await CertificateAuthority.open({ clock: systemClock }, { directory })
  assert.equal(authority.certificate, made.certificate)
  assert.equal(authority.fingerprint, made.fingerprint)

  const certificate = new X509Certificate(made.certificate)
  assert.ok(certificate.ca)
  assert.equal(certificate.fingerprint256, made.fingerprint)
  assert.match(certificate.subject, /^CN=Shoal proxy CA ./)
  assert.ok(Math.abs(Date.parse(certificate.validTo) - Date.now() - 3652 * DAY_MS) < DAY_MS)
  assert.ok(Date.parse(certificate.validFrom) < Date.now())
})

test('an authority is replaced by force only', async () => {
  await using folder = await temporaryDirectory()
  const options = { directory: folder.path }
  const first = await initProxyAuthority({ clock: systemClock }, options)
  await assert.rejects(initProxyAuthority({ clock: systemClock }, options), {
    code: 'ERR_CONFIG_INVALID',
    message: /there is a proxy CA in .*--force/,
  })
  assert.deepEqual(await readProxyAuthority(options), first)
  const second = await initProxyAuthority({ clock: systemClock }, { ...options, force: true })
  assert.notEqual(second.fingerprint, first.fingerprint)
  assert.deepEqual(await readProxyAuthority(options), second)
  assert.deepEqual((await fs.readdir(folder.path)).sort(), ['ca.crt', 'ca.key'])
  await CertificateAuthority.open({ clock: systemClock }, options)
})

test('of two that are made at the same time one stays, whole', async () => {
  await using folder = await temporaryDirectory()
  const options = { directory: folder.path }
  const outcomes = await Promise.allSettled([1, 2].map(() => initProxyAuthority({ clock: systemClock }, options)))
  const made = outcomes.filter(({ status }) => status === 'fulfilled')
  assert.equal(made.length, 1)
  await CertificateAuthority.open({ clock: systemClock }, options)
})

test('half an authority is not completed without force', async () => {
  await using folder = await temporaryDirectory()
  const options = { directory: folder.path }
  await fs.writeFile(path.join(folder.path, 'ca.crt'), 'mine')
  await assert.rejects(initProxyAuthority({ clock: systemClock }, options), { code: 'ERR_CONFIG_INVALID' })
  assert.deepEqual(await fs.readdir(folder.path), ['ca.crt'])
})

test('a directory that cannot be written is told', async () => {
  await using folder = await temporaryDirectory()
  const directory = path.join(folder.path, 'file', 'proxy-ca')
  await fs.writeFile(path.join(folder.path, 'file'), '')
  await assert.rejects(initProxyAuthority({ clock: systemClock }, { directory }), {
    code: 'ERR_STORE_IO',
    message: /could not be written/,
  })
})

test('an authority that cannot be used says what to do', WITHOUT_OPENSSL, async () => {
  await using folder = await temporaryDirectory()
  await using other = await createTestCa()
  const options = { directory: folder.path }
  const certificate = path.join(folder.path, 'ca.crt')
  const key = path.join(folder.path, 'ca.key')
  const refused = async (message: RegExp, clock: Clock = systemClock): Promise<void> => {
    await assert.rejects(CertificateAuthority.open({ clock }, options), { code: 'ERR_CONFIG_INVALID', message })
  }
  await refused(/ca\.crt is not there: "shoal proxy-ca init"/)
  await fs.mkdir(certificate)
  await refused(/ca\.crt could not be read/)
  await fs.rmdir(certificate)
  await initProxyAuthority({ clock: systemClock }, options)
  for (const mode of [0o640, 0o604, 0o620]) {
    await fs.chmod(key, mode)
    await refused(/ca\.key may be read by others than its owner: chmod 600/)
  }
  await fs.chmod(key, 0o600)
  await refused(/has expired/, clockAt(Date.now() + 4000 * DAY_MS))
  const leaf = await other.issue()
  await fs.writeFile(key, leaf.key)
  await refused(/does not belong to the key/)
  await fs.writeFile(key, 'nonsense')
  await refused(/no P-256 key/)
  await fs.writeFile(certificate, leaf.cert)
  await refused(/is not a certificate authority/)
  await fs.writeFile(certificate, 'nonsense')
  await refused(/is no certificate/)
  await initProxyAuthority({ clock: systemClock }, { ...options, force: true })
  await fs.rm(key)
  await refused(/ca\.key is not there/)
})

test('an authority with another kind of key is refused', WITHOUT_OPENSSL, async () => {
  await using folder = await temporaryDirectory()
  const [certificate, key] = ['ca.crt', 'ca.key'].map(name => path.join(folder.path, name)) as [string, string]
  const what = ['-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=rsa', '-days', '1']
  await run('openssl', ['req', '-x509', ...what, '-keyout', key, '-out', certificate])
  await fs.chmod(key, 0o600)
  await assert.rejects(CertificateAuthority.open({ clock: systemClock }, { directory: folder.path }), {
    code: 'ERR_CONFIG_INVALID',
    message: /no P-256 key/,
  })
})

test('a leaf is good for its host, by name and by address, and for a week', async () => {
  await using folder = await temporaryDirectory()
  const options = { directory: folder.path }
  await initProxyAuthority({ clock: systemClock }, options)
  const authority = await CertificateAuthority.open({ clock: systemClock }, options)
  const long = `${'a'.repeat(60)}.${'b'.repeat(60)}.test`
  for (const [host, names] of [
    ['registry.test', 'DNS:registry.test'],
    ['127.0.0.1', 'IP Address:127.0.0.1'],
    ['::1', 'IP Address:0:0:0:0:0:0:0:1'],
    [long, `DNS:${long}`],
  ] as const) {
    const leaf = await shown(await authority.leafFor(host), authority.certificate, host)
    assert.equal(leaf.subjectAltName, names)
    assert.equal(leaf.ca, false)
    assert.ok(leaf.verify(new X509Certificate(authority.certificate).publicKey))
    assert.deepEqual(leaf.keyUsage, ['1.3.6.1.5.5.7.3.1'])
    assert.ok(Math.abs(Date.parse(leaf.validTo) - Date.now() - 7 * DAY_MS) < 60_000)
    assert.ok(Math.abs(Date.now() - Date.parse(leaf.validFrom) - 3600_000) < 60_000)
  }
})

test('openssl takes authority and leaf for what they are', WITHOUT_OPENSSL, async () => {
  await using folder = await temporaryDirectory()
  const { file } = await initProxyAuthority({ clock: systemClock }, { directory: folder.path })
  const authority = await CertificateAuthority.open({ clock: systemClock }, { directory: folder.path })
  for (const host of ['registry.test', '10.0.0.1', `${'a'.repeat(60)}.${'b'.repeat(60)}.test`]) {
    const leaf = await shown(await authority.leafFor(host), authority.certificate, host)
    const leafFile = path.join(folder.path, 'leaf.pem')
    await fs.writeFile(leafFile, leaf.toString())
    const checks = [
      '-x509_strict',
      '-purpose',
      'sslserver',
      net.isIP(host) === 0 ? '-verify_hostname' : '-verify_ip',
      host,
    ]
    const { stdout } = await run('openssl', ['verify', '-CAfile', file, ...checks, leafFile])
    assert.match(stdout, /: OK/)
  }
  const { stdout } = await run('openssl', ['x509', '-in', file, '-noout', '-text'])
  assert.match(stdout, /CA:TRUE, pathlen:0/)
  assert.match(stdout, /X509v3 Key Usage: critical\n\s*Certificate Sign, CRL Sign/)
  const { stdout: printed } = await run('openssl', ['x509', '-in', file, '-noout', '-fingerprint', '-sha256'])
  assert.equal(printed.trim().split('=')[1], authority.fingerprint)
})

test('a leaf is made once for all who ask, kept, and renewed after half its life', async () => {
  await using folder = await temporaryDirectory()
  await initProxyAuthority({ clock: systemClock }, { directory: folder.path })
  const clock = clockAt(Date.now())
  const authority = await CertificateAuthority.open({ clock }, { directory: folder.path })
  const [first, same] = await Promise.all([authority.leafFor('a.test'), authority.leafFor('a.test')])
  assert.equal(first, same)
  assert.notEqual(await authority.leafFor('b.test'), first)
  clock.time += 3.4 * DAY_MS
  assert.equal(await authority.leafFor('a.test'), first)
  clock.time += 0.2 * DAY_MS
  const second = await authority.leafFor('a.test')
  assert.notEqual(second, first)
  assert.equal(await authority.leafFor('a.test'), second)
})
