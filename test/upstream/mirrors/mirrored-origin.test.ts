import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseReference, ShoalError, type ListingAnswer, type ManifestKey } from '../../../src/core/index.ts'
import { MirroredOrigin, type Mirror } from '../../../src/upstream/mirrors/index.ts'
import { collect, keyOf, REPOSITORY, TestLog } from '../rig.ts'
import { ClosableFake, fakeMirror, type MirrorChanges } from './rig.ts'

const BYTES = Buffer.from('bytes of a blob')
const WHOLE = { start: 0, end: BYTES.length }
const MANIFEST = Buffer.from('{"schemaVersion":2}')
const LISTING = { registry: 'registry.test', repository: REPOSITORY, listing: { kind: 'tags' }, query: '' } as const
const NEVER = (): Promise<number> => new Promise(() => undefined)

function manifestKey(reference: string): ManifestKey {
  return { registry: 'registry.test', repository: REPOSITORY, reference: parseReference(reference) }
}

interface Setup extends AsyncDisposable {
  readonly inner: readonly [ClosableFake, ClosableFake]
  readonly mirrors: readonly [Mirror, Mirror]
  readonly origin: ClosableFake
  readonly mirrored: MirroredOrigin
  readonly log: TestLog
}

/** Two mirrors, whose pings are never answered, before an origin. */
function setUp(changes: MirrorChanges = {}): Setup {
  const log = new TestLog()
  const inner = [new ClosableFake('first'), new ClosableFake('second')] as const
  const origin = new ClosableFake('registry:registry.test')
  const mirrors = [
    fakeMirror(inner[0], { ping: NEVER, changes }),
    fakeMirror(inner[1], { ping: NEVER, changes }),
  ] as const
  const mirrored = new MirroredOrigin({ log }, { mirrors, origin })
  return { inner, mirrors, origin, mirrored, log, [Symbol.asyncDispose]: () => mirrored.close() }
}

function failing(): never {
  throw new ShoalError('ERR_UPSTREAM_TRANSPORT', 'the host could not be talked to (ECONNREFUSED)')
}

function answer(status: number, text: string): ListingAnswer {
  return { status, headers: {}, body: Buffer.from(text) }
}

test('it goes by the name of the registry, and offers its sources in order', async () => {
  await using setup = setUp()
  assert.equal(setup.mirrored.name, 'registry:registry.test')
  assert.deepEqual(
    setup.mirrored.sources.map(({ name }) => name),
    ['mirror:first:5000', 'mirror:second:5000', 'registry:registry.test'],
  )
})

test('the first mirror that has something answers, and the registry is not asked', async () => {
  await using setup = setUp()
  const { inner, mirrored, origin } = setup
  const digest = inner[1].tag('latest', MANIFEST)
  const blob = inner[1].add(BYTES)
  inner[1].list = () => Promise.resolve(answer(200, 'of the mirror'))
  inner[0].list = () => Promise.resolve(answer(404, 'unknown'))
  assert.equal((await mirrored.statManifest(manifestKey('latest')))?.digest, digest)
  assert.deepEqual((await mirrored.getManifest(manifestKey(digest)))?.body, MANIFEST)
  assert.equal((await mirrored.stat(keyOf(blob)))?.size, BYTES.length)
  assert.deepEqual(await collect(await mirrored.open(keyOf(blob), WHOLE)), BYTES)
  assert.equal(String((await mirrored.list(LISTING)).body), 'of the mirror')
  assert.deepEqual([origin.manifestRequests, origin.stats.length, origin.opened.length], [0, 0, 0])
})

test('what no mirror has is asked of the registry, whose word is final', async () => {
  await using setup = setUp()
  const { inner, mirrored, origin } = setup
  const digest = origin.tag('latest', MANIFEST)
  assert.equal((await mirrored.statManifest(manifestKey('latest')))?.digest, digest)
  assert.equal((await mirrored.stat(keyOf(digest)))?.size, MANIFEST.length)
  assert.equal(await mirrored.getManifest(manifestKey('other')), undefined)
  for (const fake of inner) fake.list = () => Promise.resolve(answer(403, 'not for you'))
  origin.list = () => Promise.resolve(answer(404, 'of the registry'))
  assert.equal(String((await mirrored.list(LISTING)).body), 'of the registry')
})

test('a mirror that fails is logged and passed over, and what the registry says is the answer', async () => {
  const asks: ((mirrored: MirroredOrigin) => Promise<unknown>)[] = [
    mirrored => mirrored.statManifest(manifestKey('latest')),
    mirrored => mirrored.getManifest(manifestKey('latest')),
    mirrored => mirrored.stat(keyOf(`sha256:${'1'.repeat(64)}`)),
    mirrored => mirrored.open(keyOf(`sha256:${'1'.repeat(64)}`), WHOLE),
  ]
  for (const ask of asks) {
    await using absent = setUp()
    for (const fake of absent.inner) fake.beforeAnswer = failing
    assert.equal(await ask(absent.mirrored), undefined, 'absent at the registry is absent')
    assert.equal(absent.log.lines.filter(line => line.startsWith('mirror did not answer')).length, 2)
    assert.deepEqual(
      absent.mirrored.states().map(({ failures, status }) => [failures, status]),
      [
        [1, 'suspect'],
        [1, 'suspect'],
      ],
    )

    await using refused = setUp()
    for (const fake of refused.inner) fake.beforeAnswer = failing
    refused.origin.beforeAnswer = () => {
      throw new ShoalError('ERR_UPSTREAM_AUTH', 'the registry refused with 403')
    }
    await assert.rejects(ask(refused.mirrored), { code: 'ERR_UPSTREAM_AUTH' })
  }
})

test('a listing that a mirror fails is for the registry to answer', async () => {
  await using setup = setUp()
  for (const fake of setup.inner) fake.list = () => Promise.reject(new ShoalError('ERR_UPSTREAM_TIMEOUT', 'no answer'))
  setup.origin.list = () => Promise.resolve(answer(200, 'of the registry'))
  assert.equal(String((await setup.mirrored.list(LISTING)).body), 'of the registry')
  assert.deepEqual(
    setup.mirrors.map(({ status }) => status),
    ['suspect', 'suspect'],
  )
})

test('a refusal by a mirror is not final either', async () => {
  await using setup = setUp()
  const { inner, mirrored, mirrors, origin } = setup
  for (const fake of inner) {
    fake.beforeAnswer = () => {
      throw new ShoalError('ERR_UPSTREAM_AUTH', 'the mirror refused with 401')
    }
  }
  const digest = origin.tag('latest', MANIFEST)
  assert.equal((await mirrored.statManifest(manifestKey('latest')))?.digest, digest)
  assert.equal(mirrors[0].isUsable, true)
})

test('a tag is asked only of mirrors that resolve, a digest only of those that pull', async () => {
  await using pullers = setUp({ capabilities: ['pull'] })
  const digest = pullers.inner[0].tag('latest', MANIFEST)
  pullers.inner[0].list = () => Promise.resolve(answer(200, 'of the mirror'))
  pullers.origin.list = () => Promise.resolve(answer(200, 'of the registry'))
  assert.equal(await pullers.mirrored.statManifest(manifestKey('latest')), undefined)
  assert.equal((await pullers.mirrored.statManifest(manifestKey(digest)))?.digest, digest)
  assert.equal(String((await pullers.mirrored.list(LISTING)).body), 'of the registry')

  await using resolvers = setUp({ capabilities: ['resolve'] })
  resolvers.inner[0].tag('latest', MANIFEST)
  assert.equal((await resolvers.mirrored.statManifest(manifestKey('latest')))?.digest, digest)
  assert.equal(await resolvers.mirrored.getManifest(manifestKey(digest)), undefined)
  assert.equal(await resolvers.mirrored.stat(keyOf(digest)), undefined)
})

test('a caller that leaves while a mirror is asked is told its reason, and nobody else is asked', async () => {
  await using setup = setUp()
  const controller = new AbortController()
  const reason = new Error('left')
  setup.inner[0].beforeAnswer = () => {
    controller.abort(reason)
    throw reason
  }
  const ask = setup.mirrored.statManifest(manifestKey('latest'), { signal: controller.signal })
  await assert.rejects(ask, thrown => thrown === reason)
  assert.deepEqual([setup.inner[1].manifestRequests, setup.origin.manifestRequests], [0, 0])
})

test('a body of a source breaks off for its reader to see, and begin comes through where it is there', async () => {
  const log = new TestLog()
  const inner = new ClosableFake('first')
  inner.begin = inner.beginHere
  const origin = new ClosableFake('registry:registry.test')
  const mirrored = new MirroredOrigin({ log }, { mirrors: [fakeMirror(inner, { ping: NEVER })], origin })
  const blob = inner.add(BYTES)
  const [source] = mirrored.sources
  const begun = await source?.begin?.(keyOf(blob), WHOLE)
  assert.deepEqual(await collect(begun?.body), BYTES)
  inner.beforePiece = failing
  await assert.rejects(collect(await source?.open(keyOf(blob), WHOLE)), { code: 'ERR_UPSTREAM_TRANSPORT' })
  assert.equal(await source?.begin?.(keyOf(blob), WHOLE), undefined)
  assert.equal(source?.readsWhole?.(keyOf(blob)), true, 'it sends nothing')
  await mirrored.close()
})

test('the mirrors that wrong bytes came from are not asked for that blob', async () => {
  await using setup = setUp()
  const { inner, mirrored, mirrors, origin } = setup
  const blob = inner[0].add(BYTES)
  origin.add(BYTES)
  mirrored.distrust(blob, ['mirror:first:5000', 'registry:registry.test'])
  assert.deepEqual(
    mirrors.map(({ isUsable }) => isUsable),
    [false, true],
  )
  assert.deepEqual(await collect(await mirrored.open(keyOf(blob), WHOLE)), BYTES)
  assert.deepEqual([inner[0].opened.length, origin.opened.length], [0, 1])
})

test('close closes all of them, and may be called again', async () => {
  const { inner, mirrored, origin } = setUp()
  await mirrored.close()
  assert.deepEqual(
    [...inner, origin].map(({ closed }) => closed),
    [1, 1, 1],
  )
  await assert.rejects(mirrored.statManifest(manifestKey('latest')), { code: 'ERR_CLOSED' })
  await mirrored.close()
})
