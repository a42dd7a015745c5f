import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Registry } from 'prom-client'
import type { BlobSource, Digest } from '../../../src/core/index.ts'
import { MirroredOrigin } from '../../../src/upstream/mirrors/index.ts'
import { bytesOf, digestOf, generatedBlob } from '../../support/generated-blob.ts'
import { Rig } from '../../support/rig.ts'
import type { Fault, SeenRequest } from '../../support/scripted-origin.ts'
import { until } from '../../support/until.ts'
import { TestLog } from '../rig.ts'
import { ClosableFake, openMirror, openMirrorRig } from './rig.ts'

const MIB = 1024 * 1024
const SIZE = 8 * MIB
const FIRST = bytesOf(generatedBlob(SIZE, 11))
const SECOND = bytesOf(generatedBlob(SIZE, 12))
const [FIRST_DIGEST, SECOND_DIGEST] = [digestOf(FIRST), digestOf(SECOND)]
const BLOBS = new Map<Digest, Uint8Array>([
  [FIRST_DIGEST, FIRST],
  [SECOND_DIGEST, SECOND],
])

/** As a process that has been stopped: the connection is accepted, and what was not on its way does not come. */
const STOPPED = ({ kind }: SeenRequest): Fault => (kind === 'blob' ? { stallAfter: MIB } : { delayMs: 60_000 })

/** A real store and reader; the mirrors' sources are asked before the rig's own origin, which has both blobs. */
async function openReader(sources: readonly BlobSource[]): Promise<Rig> {
  const rig = await Rig.open({ sources })
  rig.origin.add(FIRST)
  rig.origin.add(SECOND)
  return rig
}

test('a mirror that hangs in the middle of a blob costs two seconds once, and not a byte', async () => {
  await using first = await openMirrorRig({ blobs: BLOBS, fault: STOPPED })
  const { mirror, server } = first
  await using rig = await openReader([mirror])
  const started = performance.now()
  assert.ok((await rig.read(FIRST_DIGEST, 0, SIZE)).equals(FIRST))
  const elapsed = performance.now() - started
  assert.ok(elapsed > 1_500 && elapsed < 5_000, `${elapsed} ms`)
  const { bytes = 0, failures } = mirror.state()
  assert.ok(bytes >= MIB, `${bytes} bytes came from the mirror`)
  assert.equal(rig.origin.sentBytes.get(FIRST_DIGEST), SIZE - bytes, 'the origin sent the rest only')
  assert.ok(failures >= 1)

  const asked = server.count('blob')
  const later = performance.now()
  assert.ok((await rig.read(SECOND_DIGEST, 0, SIZE)).equals(SECOND))
  assert.ok(performance.now() - later < 1_500, 'nobody waits for it twice')
  assert.equal(server.count('blob'), asked)
  assert.equal(rig.origin.sentBytes.get(SECOND_DIGEST), SIZE)

  server.fault = () => undefined
  await until(() => mirror.isUsable)
  await rig.store.remove(SECOND_DIGEST)
  assert.ok((await rig.read(SECOND_DIGEST, 0, SIZE)).equals(SECOND))
  assert.equal(rig.origin.sentBytes.get(SECOND_DIGEST), SIZE, 'once it is back it is used again')
})

test('a mirror that dies in the middle of a blob is followed by the next mirror, from the next byte on', async () => {
  await using first = await openMirrorRig({ blobs: BLOBS, fault: ({ nth }) => ({ reset: nth === 0 ? MIB : 0 }) })
  await using second = await openMirrorRig({ blobs: BLOBS })
  const fake = new ClosableFake('registry:unused')
  const mirrored = new MirroredOrigin({ log: first.log }, { mirrors: [first.mirror, second.mirror], origin: fake })
  await using rig = await openReader(mirrored.sources.slice(0, -1))
  assert.ok((await rig.read(FIRST_DIGEST, 0, SIZE)).equals(FIRST))
  assert.equal(rig.origin.sentBytes.get(FIRST_DIGEST), undefined)
  const received = [first.mirror, second.mirror].map(mirror => mirror.state().bytes ?? 0)
  assert.equal(
    received.reduce((sum, bytes) => sum + bytes, 0),
    SIZE,
  )
  assert.ok(received.every(bytes => bytes > 0))
})

test('a mirror that nobody listens at costs nothing, and a blob that only the origin knows of is absent where it is absent', async () => {
  const log = new TestLog()
  const dead = await openMirror({ log, metrics: new Registry() }, 'http://127.0.0.1:1')
  const fake = new ClosableFake('registry:unused')
  await using mirrored = new MirroredOrigin({ log }, { mirrors: [dead], origin: fake })
  await using rig = await openReader(mirrored.sources.slice(0, -1))
  const started = performance.now()
  assert.ok((await rig.read(FIRST_DIGEST, 0, SIZE)).equals(FIRST))
  assert.ok(performance.now() - started < 1_500)
  const unknown = digestOf(Buffer.from('nobody has it'))
  assert.equal(await rig.reader.stat(rig.key(unknown)), undefined)
})
