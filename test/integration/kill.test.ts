import assert from 'node:assert/strict'
import path from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import Database from 'better-sqlite3'
import { WrongBytesError, compareBlob } from '../support/client.ts'
import { digestOf, generatedBlob, type BlobContent } from '../support/generated-blob.ts'
import { startScriptedOrigin } from '../support/scripted-origin.ts'
import { startShoal, type ShoalProcess } from '../support/shoal.ts'
import { temporaryDirectory } from '../support/tools.ts'
import { until } from '../support/until.ts'

const KILLS = 50
const CLIENTS = 4
const MIB = 1024 * 1024

interface Blob {
  readonly digest: string
  readonly content: BlobContent
}

/** Reads random ranges and whole blobs until the daemon dies; what arrives must be right, however little it is. */
async function readUntilDead(
  shoal: ShoalProcess,
  blobs: readonly Blob[],
  random: () => number,
  isDead: () => boolean,
): Promise<number> {
  let bytes = 0
  while (!isDead()) {
    const { digest, content } = blobs[Math.floor(random() * blobs.length)]!
    const start = random() < 0.3 ? 0 : Math.floor(random() * content.size)
    const end = random() < 0.3 ? content.size : Math.min(content.size, start + 1 + Math.floor(random() * 3 * MIB))
    try {
      bytes += await compareBlob({ mirror: shoal.mirror, digest }, content, start, end)
    } catch (error: unknown) {
      if (error instanceof WrongBytesError) throw error
      // The connection went with the daemon.
      if (!isDead()) await delay(1)
    }
  }
  return bytes
}

/** Blobs that the index, as another process reads it, calls complete. */
function completeBlobs(state: string): number {
  const index = new Database(path.join(state, 'index.db'), { readonly: true })
  try {
    return index.prepare("SELECT count(*) FROM blob WHERE state = 'complete'").pluck().get() as number
  } finally {
    index.close()
  }
}

/** The same sequence for the same seed (mulberry32), so that a failure can be run again. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

test(`${KILLS} kills under load: no wrong byte is ever served, and what was complete is served with the origin gone`, async t => {
  const seed = Number(process.env['SHOAL_TEST_SEED'] ?? Date.now() % 1_000_000)
  t.diagnostic(`seed ${seed} (SHOAL_TEST_SEED)`)
  const random = seeded(seed)
  await using directory = await temporaryDirectory('shoal-kill')
  await using origin = await startScriptedOrigin({ record: false })
  const blobs = [14 * MIB + 5, 9 * MIB, 300_000, 21 * MIB + 77].map((size, index) => {
    const content = generatedBlob(size, seed + index)
    return { digest: digestOf(content), content }
  })
  for (const { digest, content } of blobs) origin.add(content, digest)
  const config = {
    mirror: { default_registry: 'origin.test', listen: ['127.0.0.1:0'] },
    registries: { 'origin.test': { host: origin.url } },
  }

  let served = 0
  for (let kill = 0; kill < KILLS; kill += 1) {
    await using shoal = await startShoal({ config, directory: directory.path })
    let dead = false
    const clients = Array.from({ length: CLIENTS }, () => readUntilDead(shoal, blobs, random, () => dead))
    await delay(20 + random() * 250)
    const killed = shoal.kill9()
    dead = true
    await killed
    for (const bytes of await Promise.all(clients)) served += bytes
    // Every so often from nothing, so that kills meet fills and not only hits.
    if (kill % 10 === 9) origin.dropConnections()
  }
  t.diagnostic(`${(served / MIB).toFixed(0)} MiB compared over ${KILLS} kills`)
  assert.ok(served > 0)

  await using filling = await startShoal({ config, directory: directory.path })
  for (const { digest, content } of blobs)
    assert.equal(await compareBlob({ mirror: filling.mirror, digest }, content), content.size)
  // Complete is what the index on the disk says is complete; until then a kill may cost blocks, never correctness.
  await until(() => completeBlobs(filling.state) === blobs.length)
  await filling.kill9()
  await origin.close()
  await using shoal = await startShoal({ config, directory: directory.path })
  for (const { digest, content } of blobs)
    assert.equal(await compareBlob({ mirror: shoal.mirror, digest }, content), content.size)
})
