import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { freePort, startShoal, temporaryDirectory } from '../support/processes.ts'
import { digestOf, startScriptedOrigin } from '../support/scripted-origin.ts'
import { mirrorsOf } from '../support/shoal-command.ts'
import { until } from '../support/until.ts'

const BYTES = Buffer.alloc(100_000, 7)
const DIGEST = digestOf(BYTES)
const MANIFEST = { mediaType: 'application/vnd.oci.image.manifest.v1+json', body: Buffer.from('{"layers":[]}') }

test('a hosts.toml that names this very daemon, as containerd’s own does, costs nobody a wait', async () => {
  await using origin = await startScriptedOrigin({
    blobs: new Map([[DIGEST, BYTES]]),
    manifests: new Map([['v1', MANIFEST]]),
  })
  const address = `127.0.0.1:${await freePort()}`
  await using certs = await temporaryDirectory()
  await fs.mkdir(path.join(certs.path, 'r.test'))
  await fs.writeFile(
    path.join(certs.path, 'r.test', 'hosts.toml'),
    `server = "${origin.url}"\n[host."http://${address}"]\n`,
  )
  await using shoal = await startShoal({ config: { mirror: { listen: [address] }, upstream: { certs_d: certs.path } } })
  for (const resource of ['manifests/v1', `blobs/${DIGEST}`]) {
    const began = performance.now()
    const answer = await fetch(`${shoal.mirror}/v2/a/b/${resource}?ns=r.test`)
    assert.equal(answer.status, 200)
    await answer.arrayBuffer()
    assert.ok(performance.now() - began < 3_000, resource)
  }
  await until(async () => ['suspect', 'down'].includes((await mirrorsOf(shoal, 'r.test'))[0]?.status ?? ''))
})

test('a registry that is this very daemon is an error at once', async () => {
  const address = `127.0.0.1:${await freePort()}`
  const registries = { 'r.test': { host: `http://${address}` } }
  await using shoal = await startShoal({ config: { mirror: { listen: [address] }, registries } })
  const began = performance.now()
  const answer = await fetch(`${shoal.mirror}/v2/a/b/blobs/${DIGEST}?ns=r.test`)
  assert.equal(answer.status, 503)
  await answer.arrayBuffer()
  assert.ok(performance.now() - began < 3_000)
})
