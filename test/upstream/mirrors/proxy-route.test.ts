import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Registry } from 'prom-client'
import { ShoalError, type Clock } from '../../../src/core/index.ts'
import { ProxyRoute, type ProxyRouteSettings } from '../../../src/upstream/mirrors/index.ts'
import { startScriptedOrigin } from '../../support/scripted-origin.ts'
import { until } from '../../support/until.ts'
import { ManualClock } from '../../store/harness.ts'
import { metric, TestLog } from '../rig.ts'

const TIMEOUT = new ShoalError('ERR_UPSTREAM_TIMEOUT', 'registry.test did not answer in time')
const BAD_GATEWAY = new ShoalError('ERR_UPSTREAM_STATUS', 'registry.test answered 502', { details: { status: 502 } })
const SETTINGS = {
  registry: 'registry.test',
  url: 'http://proxy.test:3128',
  checkIntervalMs: 5_000,
  checkPauseElapsedMs: 60_000,
}

function openRoute(clock: Clock, changes: Partial<ProxyRouteSettings> = {}) {
  const [log, metrics] = [new TestLog(), new Registry()]
  return { log, metrics, route: new ProxyRoute({ clock, log, metrics }, { ...SETTINGS, ...changes }) }
}

/** A proxy's ping page, of which the test says how it answers. */
async function pingPage() {
  const server = await startScriptedOrigin()
  const page = { status: 200 }
  server.fault = () => ({ status: page.status })
  return { server, page, pingUrl: `${server.url}/ping?token=secret` }
}

/** The ping of this moment has ended, and the wait for the next one has begun. */
function pinged(route: ProxyRoute, clock: ManualClock): Promise<void> {
  return until(() => route.state().lastPing?.at === clock.now() && clock.sleeping === 1)
}

test('a proxy without a ping URL is always taken to work', async () => {
  const clock = new ManualClock()
  const { metrics, route } = openRoute(clock)
  route.wanted()
  route.failed(TIMEOUT)
  route.failed(new ShoalError('ERR_UPSTREAM_AUTH', 'the registry refused'))
  assert.equal(route.isUsable, true)
  assert.equal(clock.sleeping, 0)
  assert.deepEqual(route.state(), {
    registry: 'registry.test',
    host: 'proxy.test:3128',
    kind: 'proxy',
    status: 'healthy',
    failures: 1,
    failureLimit: 1,
    since: clock.now(),
    lastError: TIMEOUT.message,
    requests: 1,
  })
  assert.equal(await metric(metrics, 'shoal_mirrors', { kind: 'proxy', state: 'healthy' }), 1)
  await route.close()
  await route.close()
  assert.equal(await metric(metrics, 'shoal_mirrors'), 0)
})

test('it is pinged from its first use on, and healthy as long as 200 to 399 is answered', async () => {
  const { page, pingUrl, server } = await pingPage()
  const clock = new ManualClock()
  const { log, metrics, route } = openRoute(clock, { pingUrl })
  assert.equal(server.count('other'), 0)
  const next = async (status: number): Promise<void> => {
    page.status = status
    clock.advance(5_000)
    await pinged(route, clock)
    assert.equal(route.isUsable, status < 400, `${status}`)
  }
  try {
    route.wanted()
    await pinged(route, clock)
    assert.equal(route.state().lastPing?.outcome, 'answered')
    await next(399)
    await next(404)
    assert.equal(route.state().status, 'down')
    assert.equal(route.state().failures, 1)
    assert.equal(await metric(metrics, 'shoal_mirrors', { kind: 'proxy', state: 'down' }), 1)
    await next(500)
    assert.equal(await metric(metrics, 'shoal_mirror_failures_total', { kind: 'ping' }), 1, 'it was down already')
    await next(204)
    assert.equal(route.state().failures, 0)
    assert.ok(!log.lines.join().includes('secret') && !JSON.stringify(route.state()).includes('secret'))
  } finally {
    await server.close()
    await route.close()
  }
  assert.equal(clock.sleeping, 0)
})

test('pings pause while nobody uses it, and the next use resumes them at once', async () => {
  const { page, pingUrl, server } = await pingPage()
  const clock = new ManualClock()
  const { metrics, route } = openRoute(clock, { pingUrl, checkPauseElapsedMs: 5_000 })
  try {
    route.wanted()
    await pinged(route, clock)
    clock.advance(5_000)
    await until(() => clock.sleeping === 0)
    assert.equal(route.status, 'healthy', 'it is none the worse for it')
    page.status = 503
    route.wanted()
    await pinged(route, clock)
    assert.equal(route.status, 'down')
    clock.advance(5_000)
    await until(() => route.status === 'paused')
    assert.equal(await metric(metrics, 'shoal_mirrors', { kind: 'proxy', state: 'paused' }), 1)
    assert.equal(server.count('other'), 2)
    page.status = 200
    route.wanted()
    await until(() => route.isUsable)
    assert.equal(route.state().requests, 2, 'what did not go through it is not counted')
  } finally {
    await server.close()
    await route.close()
  }
})

test('a request that did not get through makes it unhealthy until the next ping, which is sent at once', async () => {
  const { pingUrl, server } = await pingPage()
  const clock = new ManualClock()
  const { metrics, route } = openRoute(clock, { pingUrl })
  try {
    route.wanted()
    await pinged(route, clock)
    route.failed(BAD_GATEWAY)
    assert.equal(route.isUsable, true, 'a 502 may be the answer of the registry')
    route.failed(TIMEOUT)
    assert.equal(route.isUsable, false)
    route.failed(TIMEOUT)
    assert.equal(await metric(metrics, 'shoal_mirror_failures_total', { kind: 'timeout' }), 1)
    await until(() => route.isUsable)
    assert.equal(server.count('other'), 2)
  } finally {
    await server.close()
    await route.close()
  }
})

test('a ping URL that nobody listens at makes it unhealthy, and close ends all of it', async () => {
  const clock = new ManualClock()
  const { route } = openRoute(clock, { pingUrl: 'http://127.0.0.1:1/' })
  route.wanted()
  await pinged(route, clock)
  assert.equal(route.status, 'down')
  assert.match(route.state().lastError ?? '', /^127\.0\.0\.1:1 could not be talked to/)
  await route.close()
  assert.equal(clock.sleeping, 0)
  route.wanted()
  route.failed(TIMEOUT)
  assert.equal(clock.sleeping, 0)
  assert.equal(route.state().requests, 1)
})
