import { Agent, request } from 'undici'
import { asError, type Clock, type Logger } from '../../core/index.ts'
import type { ProxyOptions, UpstreamDeps } from '../options.ts'
import { createMirrorMetrics, type MirrorMetrics, type StatusTally } from './metrics.ts'
import { failureKind } from './outcomes.ts'
import { Pinger } from './pinger.ts'
import { MAX_PING_MS, Probe } from './probe.ts'
import type { MirrorState, MirrorStatus } from './state.ts'

/** Of an answer to a ping; after more the connection is closed. */
const MAX_PING_BODY_BYTES = 16 * 1024

export interface ProxyRouteSettings extends Pick<
  ProxyOptions,
  'url' | 'pingUrl' | 'checkIntervalMs' | 'checkPauseElapsedMs'
> {
  /** The name that images use. */
  readonly registry: string
}

/**
 * Whether the upstream proxy of a registry works. With a ping URL it is pinged at intervals while it is used, and healthy as long as 200 to
 * 399 is answered; a request that did not get through makes it unhealthy at once, until the next ping, which is sent at once too. Without a
 * ping URL it is always taken to work.
 */
export class ProxyRoute {
  readonly #log: Logger
  readonly #clock: Clock
  readonly #metrics: MirrorMetrics
  readonly #tally: StatusTally
  readonly #registry: string
  readonly #host: string
  readonly #pings: Pings | undefined
  #isUsable = true
  #failures = 0
  #since: number
  #lastError: string | undefined
  #requests = 0
  #closed = false

  constructor(deps: UpstreamDeps, settings: ProxyRouteSettings) {
    const { clock } = deps
    const { pingUrl, registry, url } = settings
    this.#host = new URL(url).host
    this.#log = deps.log.child({ proxy: this.#host, registry })
    this.#clock = clock
    this.#metrics = createMirrorMetrics(deps.metrics)
    this.#registry = registry
    this.#since = clock.now()
    this.#tally = this.#metrics.tally('proxy')
    this.#tally.set('healthy')
    if (pingUrl !== undefined) {
      this.#pings = openPings(
        {
          clock,
          metrics: this.#metrics,
          onPing: failure => this.#pinged(failure),
          onPause: () => this.#paused(),
        },
        { ...settings, pingUrl: new URL(pingUrl) },
      )
    }
  }

  get isUsable(): boolean {
    return this.#isUsable
  }

  /** A healthy one stays so while its pings pause. */
  get status(): MirrorStatus {
    if (this.#isUsable) return 'healthy'
    return this.#pings?.pinger.isPaused === true ? 'paused' : 'down'
  }

  /** To be called for every request, whether or not it then goes through the proxy. The first begins the pings. */
  wanted(): void {
    if (this.#closed) return
    if (this.#isUsable) this.#requests += 1
    this.#pings?.pinger.wanted()
    this.#pings?.pinger.start('now')
  }

  /** A request through the proxy failed. Only what did not get through makes it unhealthy: an answer of 5xx may be the registry's own. */
  failed(error: unknown): void {
    const kind = failureKind(error)
    if (this.#closed || kind === undefined || !this.#isUsable) return
    this.#failures += 1
    this.#lastError = asError(error).message
    this.#metrics.failure(kind)
    if (this.#pings === undefined || (kind !== 'timeout' && kind !== 'transport')) return
    this.#become(false)
    this.#pings.pinger.stop()
    this.#pings.pinger.start('now')
  }

  state(): MirrorState {
    const last = this.#pings?.probe.last
    return {
      registry: this.#registry,
      host: this.#host,
      kind: 'proxy',
      status: this.status,
      failures: this.#failures,
      failureLimit: 1,
      since: this.#since,
      ...(this.#lastError === undefined ? {} : { lastError: this.#lastError }),
      ...(last === undefined ? {} : { lastPing: last }),
      requests: this.#requests,
    }
  }

  /** Ends the ping under way and sends no more. May be called again. */
  async close(): Promise<void> {
    this.#closed = true
    this.#tally.remove()
    this.#pings?.pinger.stop()
    await this.#pings?.agent.destroy()
  }

  #pinged(failure: Error | undefined): void {
    if (failure === undefined) {
      if (this.#isUsable) return
      this.#failures = 0
      this.#become(true)
      return
    }
    this.#lastError = failure.message
    if (!this.#isUsable) return
    this.#failures += 1
    this.#metrics.failure('ping')
    this.#become(false)
  }

  #paused(): void {
    if (!this.#isUsable) this.#changed()
  }

  #become(isUsable: boolean): void {
    this.#isUsable = isUsable
    this.#changed()
    if (isUsable) this.#log.info({}, 'proxy answers, used again')
    else this.#log.warn({ cause: this.#lastError }, 'proxy not used')
  }

  #changed(): void {
    this.#since = this.#clock.now()
    this.#tally.set(this.status)
  }
}

/** What a proxy with a ping URL has besides. */
interface Pings {
  readonly agent: Agent
  readonly probe: Probe
  readonly pinger: Pinger
}

interface PingsDeps {
  readonly clock: Clock
  readonly metrics: MirrorMetrics
  readonly onPing: (failure: Error | undefined) => void
  readonly onPause: () => void
}

/** Opens no connection yet. The ping URL is asked directly, not through the proxy. */
function openPings(
  { clock, metrics, onPause, onPing }: PingsDeps,
  options: { readonly pingUrl: URL; readonly checkIntervalMs: number; readonly checkPauseElapsedMs: number },
): Pings {
  const { checkIntervalMs, checkPauseElapsedMs, pingUrl } = options
  // No connection is kept: that a new one can be made is what is to be found out.
  const agent = new Agent({ connections: 1, pipelining: 0, connect: { timeout: MAX_PING_MS } })
  const probe = new Probe(
    {
      clock,
      metrics,
      ping: async ({ signal }) => {
        const { body, statusCode } = await request(pingUrl, { dispatcher: agent, signal })
        await body.dump({ limit: MAX_PING_BODY_BYTES, signal })
        return statusCode
      },
    },
    { host: pingUrl.host, isAlive: status => status >= 200 && status < 400 },
  )
  const pinger = new Pinger(
    { clock, ping: signal => probe.run({ timeoutMs: MAX_PING_MS, signal }), onPause, onPing },
    { intervalMs: checkIntervalMs, pauseElapsedMs: checkPauseElapsedMs },
  )
  return { agent, probe, pinger }
}
