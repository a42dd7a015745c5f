import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { errorCode } from '../../../src/core/index.ts'
import { PUBLIC_TLS, RegistryOrigin, type TlsOptions } from '../../../src/upstream/index.ts'
import { digestOf, startScriptedOrigin } from '../../support/scripted-origin.ts'
import { createTestCa, type TestCa, type TestCertificate } from '../../support/test-ca.ts'
import { DEFAULTS, openRig, readRange, testDeps, type RegistryRig } from '../rig.ts'

const BYTES = Buffer.from('behind TLS')
const DIGEST = digestOf(BYTES)
const blobs = new Map([[DIGEST, BYTES]])
const RANGE = { start: 0, end: BYTES.length }

let ca: TestCa
let server: TestCertificate

before(async () => {
  ca = await createTestCa()
  server = await ca.issue()
})

after(() => ca[Symbol.asyncDispose]())

function openTls(tls: Partial<TlsOptions>, certificate = server, clientCa?: string): Promise<RegistryRig> {
  const { cert, key } = certificate
  const served = { cert, key, ...(clientCa === undefined ? {} : { clientCa }) }
  return openRig({ blobs, tls: served }, { tls: { ...PUBLIC_TLS, ...tls } })
}

test('a certificate of an authority that is trusted is accepted', async () => {
  await using rig = await openTls({ ca: [ca.caFile] })
  assert.deepEqual(await readRange(rig.registry, DIGEST, RANGE), BYTES)
})

test('a certificate of nobody’s is refused, and not asked for again', async () => {
  await using rig = await openTls({})
  await assert.rejects(
    readRange(rig.registry, DIGEST, RANGE),
    (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_TRANSPORT',
  )
  assert.deepEqual(rig.clock.sleeps, [])
  assert.equal(rig.origin.requests.length, 0)
})

test('with skip_verify any certificate is accepted', async () => {
  await using rig = await openTls({ skipVerify: true })
  assert.deepEqual(await readRange(rig.registry, DIGEST, RANGE), BYTES)
})

test('a certificate for another name is refused, unless that is the name to expect', async () => {
  const other = await ca.issue(['registry.inside.test'])
  await using refused = await openTls({ ca: [ca.caFile] }, other)
  await assert.rejects(
    readRange(refused.registry, DIGEST, RANGE),
    (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_TRANSPORT',
  )
  await using accepted = await openTls({ ca: [ca.caFile], serverName: 'registry.inside.test' }, other)
  assert.deepEqual(await readRange(accepted.registry, DIGEST, RANGE), BYTES)
})

test('the client certificate is shown to the registry', async () => {
  const { certFile, keyFile } = await ca.issue(['client.test'])
  await using without = await openTls({ ca: [ca.caFile] }, server, ca.ca)
  await assert.rejects(
    readRange(without.registry, DIGEST, RANGE),
    (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_TRANSPORT',
  )
  await using shown = await openTls({ ca: [ca.caFile], clients: [{ cert: certFile, key: keyFile }] }, server, ca.ca)
  assert.deepEqual(await readRange(shown.registry, DIGEST, RANGE), BYTES)
})

test('the authority is trusted where the registry redirects to, but no client certificate is shown there', async () => {
  const { certFile, keyFile } = await ca.issue(['client.test'])
  for (const clientCa of [undefined, ca.ca]) {
    const served = { cert: server.cert, key: server.key, ...(clientCa === undefined ? {} : { clientCa }) }
    await using cdn = await startScriptedOrigin({ blobs, tls: served })
    const tls = { ...PUBLIC_TLS, ca: [ca.caFile], clients: [{ cert: certFile, key: keyFile }] }
    await using rig = await openRig({ cdn, tls: { cert: server.cert, key: server.key } }, { tls })
    const reading = readRange(rig.registry, DIGEST, RANGE)
    if (clientCa === undefined) assert.deepEqual(await reading, BYTES)
    else await assert.rejects(reading, (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_TRANSPORT')
  }
})

test('a redirect from https to http is refused', async () => {
  await using cdn = await startScriptedOrigin({ blobs })
  await using rig = await openRig({ cdn, tls: server }, { tls: { ...PUBLIC_TLS, ca: [ca.caFile] } })
  await assert.rejects(
    readRange(rig.registry, DIGEST, RANGE),
    (error: unknown) => errorCode(error) === 'ERR_UPSTREAM_STATUS',
  )
  assert.equal(cdn.requests.length, 0)
})

test('files that are missing, or are no certificates, are errors of the configuration', async () => {
  const nonsense = path.join(ca.directory, 'nonsense.pem')
  await fs.writeFile(nonsense, '-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n')
  const wrong: Partial<TlsOptions>[] = [
    { ca: [path.join(ca.directory, 'missing.pem')] },
    { clients: [{ cert: server.certFile }] },
    { clients: [{ cert: server.certFile, key: nonsense }] },
    { ca: [nonsense] },
    { ca: [ca.caFile, nonsense] },
  ]
  for (const tls of wrong) {
    const options = { ...DEFAULTS, host: 'https://registry.test', tls: { ...PUBLIC_TLS, ...tls } }
    await assert.rejects(
      RegistryOrigin.open(testDeps(), options),
      (error: unknown) => errorCode(error) === 'ERR_CONFIG_INVALID',
      JSON.stringify(tls),
    )
  }
})

test('one file may hold the client certificate and its key', async () => {
  const { cert, key } = await ca.issue(['client.test'])
  const both = path.join(ca.directory, 'both.pem')
  await fs.writeFile(both, `${key}${cert}`)
  await using rig = await openTls({ ca: [ca.caFile], clients: [{ cert: both }] }, server, ca.ca)
  assert.deepEqual(await readRange(rig.registry, DIGEST, RANGE), BYTES)
})
