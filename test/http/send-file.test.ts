import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { describe, test } from 'node:test'
import { Agent, request } from 'undici'
import type { OpenBlob } from '../../src/blobs/index.ts'
import { ShoalError } from '../../src/core/index.ts'
import { openMirror, viewOf } from '../support/mirror-rig.ts'
import { createTestCa } from '../support/test-ca.ts'
import { skipWithout } from '../support/tools.ts'
import { until } from '../support/until.ts'

const MIB = 1024 * 1024
const ALICE = 'Bearer alice'

/** A warm blob of which every range may be sent from the page cache; `change` replaces methods of what lookup() finds. */
async function openWarm(change: (open: OpenBlob) => Partial<OpenBlob>, authorization?: string) {
  const mirror = await openMirror()
  const { rig } = mirror
  const content = randomBytes(3 * MIB)
  const digest = rig.origin.add(content)
  if (authorization !== undefined) {
    rig.origin.visibility = 'private'
    rig.origin.beforeAnswer = (_call, options) => {
      if (options.authorization !== authorization)
        throw new ShoalError('ERR_UPSTREAM_AUTH', 'no', { details: { status: 401 } })
    }
  }
  await rig.read(digest, 0, content.length, authorization === undefined ? {} : { authorization })
  await until(() => rig.store.find(digest)?.state === 'complete')
  const lookup = rig.reader.lookup.bind(rig.reader)
  rig.reader.lookup = (...place) => {
    const open = lookup(...place)
    return open && { ...viewOf(open), canSendNow: () => true, ...change(open) }
  }
  return { mirror, content, digest, path: `/v2/library/test/blobs/${digest}` }
}

describe('bodies from the page cache to the socket', () => {
  test('up to 1 MiB they are sent so, above that in pieces, so that nobody else waits for long', async () => {
    const sent: number[] = []
    const warm = await openWarm(open => ({
      sendNow: (socket, position, length) => {
        sent.push(length)
        return open.sendNow(socket, position, length)
      },
    }))
    await using mirror = warm.mirror
    for (const length of [16 * 1024 - 1, 16 * 1024, MIB, MIB + 1, 2 * MIB]) {
      // Twice: the first request makes the URL known, the second takes the short way.
      for (let round = 0; round < 2; round += 1) {
        const answer = await mirror.fetch(warm.path, { headers: { range: `bytes=5-${4 + length}` } })
        assert.equal(answer.status, 206)
        assert.ok(answer.body.equals(warm.content.subarray(5, 5 + length)))
      }
    }
    assert.deepEqual([...new Set(sent)], [16 * 1024, MIB])
  })

  test("what the socket does not take follows in pieces, with the caller's credential where the disk has lost it", async () => {
    let sending = 0
    const warm = await openWarm(open => {
      const isLost = (): boolean => sending > 0
      return {
        sendNow: (socket, position, length) => {
          sending += 1
          return open.sendNow(socket, position, length / 2)
        },
        readNow: (target, position) => !isLost() && open.readNow(target, position),
        read: (...range) => (isLost() ? Promise.resolve(undefined) : open.read(...range)),
      }
    }, ALICE)
    await using mirror = warm.mirror
    const credentials: unknown[] = []
    const stream = mirror.rig.reader.stream.bind(mirror.rig.reader)
    mirror.rig.reader.stream = (key, range, options) => {
      credentials.push(options?.authorization)
      return stream(key, range, options)
    }
    const headers = { authorization: ALICE, range: `bytes=0-${MIB / 2 - 1}` }
    // Makes the URL known.
    await mirror.fetch(warm.path, { method: 'GET', headers: { ...headers, 'if-none-match': `"${warm.digest}"` } })
    const answer = await mirror.fetch(warm.path, { headers })
    assert.equal(sending, 1)
    assert.equal(answer.status, 206)
    assert.ok(answer.body.equals(warm.content.subarray(0, MIB / 2)))
    assert.deepEqual(credentials, [ALICE])
    assert.equal((await mirror.fetch(warm.path, { headers: { range: headers.range } })).status, 401)
  })
})

test('behind TLS no byte goes past the encryption', { skip: await skipWithout(['openssl']) }, async () => {
  let past = 0
  const warm = await openWarm(() => ({
    canSendNow: () => {
      past += 1
      return true
    },
  }))
  await using mirror = warm.mirror
  await using ca = await createTestCa()
  const { cert, key } = await ca.issue()
  const asked = { registry: 'registry.test', repository: 'library/test', digest: warm.digest }
  const server = https.createServer({ cert, key }, (incoming, response) => {
    void mirror.blobs.serve(incoming, response, asked, new AbortController().signal)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const agent = new Agent({ connect: { ca: ca.ca } })
  try {
    const url = `https://localhost:${(server.address() as AddressInfo).port}/`
    const answer = await request(url, { dispatcher: agent, headers: { range: 'bytes=0-99999' } })
    assert.equal(answer.statusCode, 206)
    assert.ok(Buffer.from(await answer.body.arrayBuffer()).equals(warm.content.subarray(0, 100_000)))
    assert.equal(past, 0)
  } finally {
    await agent.close()
    server.close()
  }
})
