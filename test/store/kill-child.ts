// Run as a child process: fills blobs in the store at argv[2] until it is killed, saying so for each block. Bytes as contentOf() makes them.
import { Registry } from 'prom-client'
import { blockCount, silentLogger, systemClock } from '../../src/core/index.ts'
import { ChunkStore } from '../../src/store/index.ts'
import { blockOf, contentOf, digestOf, MIB } from './harness.ts'

export const KILL_BLOBS = [1, 2, 3, 4].map(seed => ({ seed, size: seed * 3 * MIB + seed }))

const [, script = '', path] = process.argv
if (path !== undefined && script === import.meta.filename) {
  const store = await ChunkStore.open(
    { log: silentLogger, clock: systemClock, metrics: new Registry() },
    { path, maxBytes: 1024 * MIB, minFreeBytes: 0, memoryBytes: 0 },
  )
  process.stdout.write('open\n')
  const contents = KILL_BLOBS.map(({ seed, size }) => contentOf(size, seed))
  for (let round = 0; ; round += 1) {
    const bytes = contents[round % contents.length]
    if (bytes === undefined) break
    const digest = digestOf(bytes)
    if (store.find(digest)?.state === 'complete') await store.remove(digest)
    const blob = store.ensure(digest, { size: bytes.byteLength })
    const blocks = Array.from({ length: blockCount(bytes.byteLength) }, (_, block) => block)
    const order = blocks.toSorted((a, b) => ((a * 7 + round) % 11) - ((b * 7 + round) % 11))
    const some = round % 3 === 0 ? order : order.slice(0, order.length / 2)
    await Promise.all(
      some.map(async block => {
        await blob.write(block, [blockOf(bytes, block)], 'registry:child')
        process.stdout.write('block\n')
      }),
    )
  }
}
