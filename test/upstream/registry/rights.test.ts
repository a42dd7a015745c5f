import assert from 'node:assert/strict'
import { test } from 'node:test'
import { errorCode } from '../../../src/core/index.ts'
import { lendRights, OwnRights, type Rights } from '../../../src/upstream/registry/rights.ts'
import { TestClock } from '../rig.ts'

const OWN: Rights = {
  initial: () => Promise.resolve({ header: 'Bearer token', visibility: 'public', reused: true }),
  answer: () => Promise.resolve(undefined),
  isRefused: () => false,
  refuse: () => undefined,
  allow: () => undefined,
}

test('what the registry granted is lent for five minutes, unless it is refused before', async () => {
  const clock = new TestClock()
  const owner = new OwnRights({ own: OWN, clock })
  const lent = lendRights(owner)
  const isLent = (repository: string): Promise<boolean> =>
    lent.initial(repository, {}).then(
      () => true,
      (error: unknown) => {
        assert.equal(errorCode(error), 'ERR_UPSTREAM_AUTH')
        return false
      },
    )
  assert.equal(await isLent('team/app'), false)
  owner.allow('team/app')
  clock.time += 5 * 60_000 - 1
  assert.equal(await isLent('team/app'), true)
  assert.equal(await isLent('other/app'), false)
  clock.time += 2
  assert.equal(await isLent('team/app'), false)
  owner.allow('team/app')
  assert.equal(await isLent('team/app'), true)
  owner.refuse('team/app')
  assert.equal(await isLent('team/app'), false)
})

test('lent rights say that they are lent, through another owner as well', () => {
  const clock = new TestClock()
  const owner = new OwnRights({ own: OWN, clock })
  assert.equal(owner.isLent, false)
  assert.equal(new OwnRights({ own: lendRights(owner), clock }).isLent, true)
})
