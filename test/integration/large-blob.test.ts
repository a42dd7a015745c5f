import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import { test } from 'node:test'
import { compareBlob, fetchBlob } from '../support/client.ts'
import { bytesOf, generatedBlob } from '../support/generated-blob.ts'
import { startScriptedOrigin } from '../support/scripted-origin.ts'
import { startShoal } from '../support/shoal.ts'

const MIB = 1024 * 1024
const GIB = 1024 * MIB
/** No content has this digest; the blob is never complete here, so nobody finds out. */
const DIGEST = `sha256:${'0'.repeat(64)}`

async function residentBytes(pid: number): Promise<number> {
  const status = await fs.readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) * 1024
}

test('a blob of 8 GiB streams through at constant memory, and ranges beyond 4 GiB are exact', async t => {
  const content = generatedBlob(8 * GIB + 12_345)
  await using origin = await startScriptedOrigin({ record: false })
  origin.add(content, DIGEST)
  await using shoal = await startShoal({
    config: {
      mirror: { default_registry: 'origin.test', listen: ['127.0.0.1:0'] },
      registries: { 'origin.test': { host: origin.url } },
      store: { max_bytes: '256MiB' },
    },
  })
  const address = { mirror: shoal.mirror, digest: DIGEST }

  for (const start of [4 * GIB - 5, 4 * GIB, 6 * GIB + 123_456_789, content.size - 10]) {
    const end = Math.min(content.size, start + 10)
    const { status, headers, body } = await fetchBlob(address, `${start}-${end - 1}`)
    assert.equal(status, 206)
    assert.equal(headers['content-range'], `bytes ${start}-${end - 1}/${content.size}`)
    assert.ok(body.equals(bytesOf(content, start, end)))
  }

  const resident: number[] = []
  const sampler = setInterval(() => {
    // A sample that fails is a daemon that died, which the comparison below reports.
    residentBytes(shoal.pid).then(
      bytes => resident.push(bytes),
      () => undefined,
    )
  }, 250)
  try {
    assert.equal(await compareBlob(address, content), content.size)
  } finally {
    clearInterval(sampler)
  }
  const most = Math.max(...resident)
  t.diagnostic(`most resident: ${(most / MIB).toFixed(0)} MiB in ${resident.length} samples`)
  assert.ok(resident.length > 4)
  assert.ok(most < 400 * MIB, `${most} bytes resident`)
  assert.ok((origin.bytesSent.get(DIGEST) ?? 0) < content.size + 64 * MIB, 'the origin sent it once')
})
