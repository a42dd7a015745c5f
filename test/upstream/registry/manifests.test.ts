import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  errorCode,
  MANIFEST_TYPES,
  MAX_LISTING_BYTES,
  MAX_MANIFEST_BYTES,
  parseReference,
  type Digest,
  type DigestAlgorithm,
  type ErrorCode,
  type ManifestKey,
} from '../../../src/core/index.ts'
import { rewriteLinks } from '../../../src/upstream/registry/listing.ts'
import { sniffManifestType, verifyManifest } from '../../../src/upstream/registry/manifests.ts'
import { digestOf, type Fault } from '../../support/scripted-origin.ts'
import { asDigest, openRig, REPOSITORY, type RegistryRig } from '../rig.ts'

const TYPE = 'application/vnd.oci.image.manifest.v1+json'
const BODY = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: TYPE, config: {}, layers: [] }))
const DIGEST = digestOf(BODY)
const DIGEST_512 = digestOf(BODY, 'sha512')
const manifest = { mediaType: TYPE, body: BODY }

function keyOf(reference: string): ManifestKey {
  return { registry: 'registry.test', repository: REPOSITORY, reference: parseReference(reference) }
}

function openWithManifest(fault?: () => Fault): Promise<RegistryRig> {
  const manifests = new Map([
    ['latest', manifest],
    [DIGEST, manifest],
    [DIGEST_512, manifest],
  ])
  return openRig({ manifests, tags: ['latest'], ...(fault === undefined ? {} : { fault }) })
}

function failsWith(code: ErrorCode): (error: unknown) => boolean {
  return error => errorCode(error) === code
}

test('a manifest is found by tag and by digest, sha512 included', async () => {
  await using rig = await openWithManifest()
  for (const [reference, digest] of [
    ['latest', DIGEST],
    [DIGEST, DIGEST],
    [DIGEST_512, DIGEST_512],
  ] as const) {
    const info = await rig.registry.statManifest(keyOf(reference))
    assert.deepEqual(info, { digest, mediaType: TYPE, size: BODY.length, visibility: 'public' })
    const { body, ...rest } = (await rig.registry.getManifest(keyOf(reference)))!
    assert.deepEqual(rest, info)
    assert.ok(BODY.equals(body))
  }
})

test('an unknown manifest is undefined', async () => {
  await using rig = await openWithManifest()
  for (const reference of ['nightly', `sha256:${'0'.repeat(64)}`]) {
    assert.equal(await rig.registry.statManifest(keyOf(reference)), undefined)
    assert.equal(await rig.registry.getManifest(keyOf(reference)), undefined)
  }
})

test('the client’s Accept is passed on, and without one every known type is asked for', async () => {
  await using rig = await openWithManifest()
  await rig.registry.getManifest(keyOf('latest'), { accept: 'application/x, */*' })
  await rig.registry.statManifest(keyOf('latest'))
  assert.deepEqual(
    rig.origin.requests.map(({ headers }) => headers.accept),
    ['application/x, */*', MANIFEST_TYPES.join(', ')],
  )
})

test('a manifest that is not what was asked for, or not what the registry calls it, is refused', async () => {
  const other = digestOf(Buffer.from('something else'))
  const lies: [reference: string, headers: Record<string, string>][] = [
    ['latest', { 'docker-content-digest': other }],
    [DIGEST, { 'docker-content-digest': other }],
    ['latest', { 'docker-content-digest': digestOf(Buffer.from('other'), 'sha512') }],
  ]
  for (const [reference, headers] of lies) {
    await using rig = await openWithManifest(() => ({ headers }))
    await assert.rejects(rig.registry.getManifest(keyOf(reference)), failsWith('ERR_DIGEST_MISMATCH'))
  }
  await using rig = await openRig({ manifests: new Map([[DIGEST, { mediaType: TYPE, body: Buffer.from('{}') }]]) })
  rig.origin.fault = () => ({ headers: { 'docker-content-digest': '' } })
  await assert.rejects(rig.registry.getManifest(keyOf(DIGEST)), failsWith('ERR_DIGEST_MISMATCH'))
})

test('a HEAD that contradicts the digest asked for is not believed either', async () => {
  const other = digestOf(Buffer.from('something else'))
  await using rig = await openWithManifest(() => ({ headers: { 'docker-content-digest': other } }))
  await assert.rejects(rig.registry.statManifest(keyOf(DIGEST)), failsWith('ERR_DIGEST_MISMATCH'))
})

test('a tag that the registry names by sha512 keeps that digest', async () => {
  await using rig = await openWithManifest(() => ({ headers: { 'docker-content-digest': DIGEST_512 } }))
  assert.equal((await rig.registry.getManifest(keyOf('latest')))?.digest, DIGEST_512)
  assert.equal((await rig.registry.getManifest(keyOf(DIGEST)))?.digest, DIGEST, 'what was asked for comes first')
})

const HEADS: [what: string, fault: Fault][] = [
  ['405', { status: 405 }],
  ['no digest', { headers: { 'docker-content-digest': '' } }],
  ['no length', { headers: { 'content-length': '' } }],
  ['no type', { headers: { 'content-type': '' } }],
]

for (const [what, fault] of HEADS) {
  test(`where HEAD answers with ${what}, the manifest itself is read`, async () => {
    await using rig = await openWithManifest()
    rig.origin.fault = ({ method }) => (method === 'HEAD' ? fault : undefined)
    assert.deepEqual(await rig.registry.statManifest(keyOf('latest')), {
      digest: DIGEST,
      mediaType: TYPE,
      size: BODY.length,
      visibility: 'public',
    })
    assert.equal(rig.origin.requests.length, 2)
  })
}

test('where HEAD is not answered, an absent manifest is absent', async () => {
  await using rig = await openWithManifest()
  rig.origin.fault = ({ method }) => (method === 'HEAD' ? { status: 405 } : undefined)
  assert.equal(await rig.registry.statManifest(keyOf('nightly')), undefined)
})

test('a type that is not told is read from the manifest', async () => {
  await using rig = await openWithManifest(() => ({ headers: { 'content-type': 'application/octet-stream' } }))
  assert.equal((await rig.registry.getManifest(keyOf('latest')))?.mediaType, TYPE)
  assert.equal(sniffManifestType(Buffer.from('{"manifests":[]}')), MANIFEST_TYPES[0])
  assert.equal(sniffManifestType(Buffer.from('{"config":{},"layers":[]}')), MANIFEST_TYPES[1])
  for (const text of ['{}', '[]', 'null', '"x"', '\x1f\x8b', ''])
    assert.equal(sniffManifestType(Buffer.from(text)), undefined, text)
})

test('what is no manifest at all is an error', async () => {
  const body = Buffer.from('<html>')
  await using rig = await openRig({ manifests: new Map([['latest', { mediaType: '', body }]]) })
  await assert.rejects(rig.registry.getManifest(keyOf('latest')), failsWith('ERR_UPSTREAM_BODY'))
})

test('parameters of the type are not part of it', async () => {
  await using rig = await openWithManifest(() => ({ headers: { 'content-type': `${TYPE}; charset=utf-8` } }))
  assert.equal((await rig.registry.statManifest(keyOf('latest')))?.mediaType, TYPE)
})

test('a manifest larger than allowed is cut off, with and without a stated length', async () => {
  const body = Buffer.alloc(MAX_MANIFEST_BYTES + 1, 0x20)
  await using rig = await openRig({ manifests: new Map([['latest', { mediaType: TYPE, body }]]) })
  await assert.rejects(rig.registry.getManifest(keyOf('latest')), failsWith('ERR_LIMIT_EXCEEDED'))
  rig.origin.fault = () => ({ headers: { 'content-length': '' } })
  await assert.rejects(rig.registry.getManifest(keyOf('latest')), failsWith('ERR_LIMIT_EXCEEDED'))
})

test('an encoded manifest and an unexpected status are errors', async () => {
  await using rig = await openWithManifest(() => ({ headers: { 'content-encoding': 'gzip' } }))
  await assert.rejects(rig.registry.getManifest(keyOf('latest')), failsWith('ERR_UPSTREAM_BODY'))
  rig.origin.fault = () => ({ status: 406 })
  await assert.rejects(rig.registry.getManifest(keyOf('latest')), failsWith('ERR_UPSTREAM_STATUS'))
})

test('a manifest is asked for again after a failure of the moment', async () => {
  await using rig = await openWithManifest()
  rig.origin.fault = ({ nth }) => (nth === 0 ? { status: 500 } : nth === 1 ? { reset: 'before-headers' } : undefined)
  assert.equal((await rig.registry.getManifest(keyOf('latest')))?.digest, DIGEST)
})

test('tags are passed through with the query as it came', async () => {
  await using rig = await openWithManifest(() => ({ headers: { 'x-internal': 'secret', 'set-cookie': 'a=b' } }))
  const request = {
    registry: 'registry.test',
    repository: REPOSITORY,
    listing: { kind: 'tags' },
    query: 'n=2&last=a%20b',
  } as const
  const { body, headers, status } = await rig.registry.list(request)
  assert.equal(status, 200)
  assert.deepEqual(JSON.parse(Buffer.from(body).toString()), { name: REPOSITORY, tags: ['latest'] })
  assert.deepEqual(headers, { 'content-type': 'application/json' })
  assert.equal(rig.origin.requests[0]!.url, `/v2/${REPOSITORY}/tags/list?n=2&last=a%20b`)
})

test('referrers are passed through, a 404 included', async () => {
  await using rig = await openWithManifest()
  const request = {
    registry: 'registry.test',
    repository: REPOSITORY,
    listing: { kind: 'referrers', digest: asDigest(DIGEST) },
    query: '',
  } as const
  assert.equal((await rig.registry.list(request)).status, 200)
  assert.equal(rig.origin.requests[0]!.url, `/v2/${REPOSITORY}/referrers/${DIGEST}`)
  rig.origin.fault = () => ({ status: 404, body: '{"errors":[]}' })
  const { body, status } = await rig.registry.list(request)
  assert.deepEqual({ status, body: Buffer.from(body).toString() }, { status: 404, body: '{"errors":[]}' })
})

test('a listing that is encoded or endless is an error', async () => {
  await using rig = await openWithManifest(() => ({ headers: { 'content-encoding': 'br' } }))
  const request = { registry: 'registry.test', repository: REPOSITORY, listing: { kind: 'tags' }, query: '' } as const
  await assert.rejects(rig.registry.list(request), failsWith('ERR_UPSTREAM_BODY'))
  rig.origin.fault = () => ({ status: 200, body: ' '.repeat(MAX_LISTING_BYTES + 1) })
  await assert.rejects(rig.registry.list(request), failsWith('ERR_LIMIT_EXCEEDED'))
})

test('a link to the next page leads back to the mirror when it names the registry itself', () => {
  const base = new URL('https://registry.test/prefix/v2/')
  const cases: [from: string, to: string][] = [
    [
      '<https://registry.test/prefix/v2/a/b/tags/list?n=1&last=x>; rel="next"',
      '</v2/a/b/tags/list?n=1&last=x>; rel="next"',
    ],
    ['</prefix/v2/a/tags/list?n=1>; rel="next"', '</v2/a/tags/list?n=1>; rel="next"'],
    ['<?n=1&last=x>; rel="next"', '<?n=1&last=x>; rel="next"'],
    ['<https://elsewhere.test/v2/a/tags/list>; rel="next"', '<https://elsewhere.test/v2/a/tags/list>; rel="next"'],
    ['<https://registry.test/other>; rel="next"', '<https://registry.test/other>; rel="next"'],
    ['<http://[>; rel="next"', '<http://[>; rel="next"'],
  ]
  for (const [from, to] of cases) assert.equal(rewriteLinks(from, base), to)
})

test('the link of a listing is rewritten on its way', async () => {
  await using rig = await openWithManifest()
  rig.origin.fault = () => ({
    headers: { link: `<${rig.origin.url}/v2/${REPOSITORY}/tags/list?n=1&last=a>; rel="next"` },
  })
  const request = {
    registry: 'registry.test',
    repository: REPOSITORY,
    listing: { kind: 'tags' },
    query: 'n=1',
  } as const
  assert.equal(
    (await rig.registry.list(request)).headers['link'],
    `</v2/${REPOSITORY}/tags/list?n=1&last=a>; rel="next"`,
  )
})

test('a body is hashed once for every name that it goes by', () => {
  const hashed: string[] = []
  const hash = (body: Uint8Array, algorithm: DigestAlgorithm): Digest => {
    hashed.push(algorithm)
    return asDigest(digestOf(body, algorithm))
  }
  const [short, long] = [asDigest(DIGEST), asDigest(DIGEST_512)]
  assert.equal(verifyManifest(BODY, [short, short], 'registry.test', hash), short)
  assert.deepEqual(hashed.splice(0), ['sha256'])
  assert.equal(verifyManifest(BODY, [long, short], 'registry.test', hash), long)
  assert.deepEqual(hashed.splice(0), ['sha512', 'sha256'])
  assert.equal(verifyManifest(BODY, [undefined, undefined], 'registry.test', hash), short)
  assert.deepEqual(hashed, ['sha256'])
})
