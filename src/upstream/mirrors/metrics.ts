import { Counter, Gauge, type Registry } from 'prom-client'
import { once } from '../metrics.ts'
import type { MirrorFailureKind, MirrorRequestOutcome } from './outcomes.ts'
import type { MirrorKind, MirrorStatus, PingOutcome } from './state.ts'

/** What is counted of mirrors and upstream proxies. Labels come from closed sets: never a host or a registry. */
export interface MirrorMetrics {
  request(outcome: MirrorRequestOutcome): void
  failure(kind: MirrorFailureKind): void
  ping(outcome: PingOutcome): void
  failover(): void
  /** One mirror more, in the gauge of what they are doing. */
  tally(kind: MirrorKind): StatusTally
}

/** One mirror's place in the gauge. */
export interface StatusTally {
  set(status: MirrorStatus): void
  /** The mirror is no more. May be called again. */
  remove(): void
}

/** May be called again with the same registry: the metrics that are there are used. */
export function createMirrorMetrics(registry: Registry): MirrorMetrics {
  const registers = [registry]
  const requests = once(
    registry,
    'shoal_mirror_requests_total',
    name =>
      new Counter({
        name,
        help: 'Requests to mirrors by how the head of their answer ended.',
        labelNames: ['outcome'],
        registers,
      }),
  )
  const failures = once(
    registry,
    'shoal_mirror_failures_total',
    name =>
      new Counter({
        name,
        help: 'Failures that counted against a mirror or an upstream proxy, one for all requests that failed together.',
        labelNames: ['kind'],
        registers,
      }),
  )
  const pings = once(
    registry,
    'shoal_mirror_pings_total',
    name =>
      new Counter({
        name,
        help: 'Pings of mirrors and upstream proxies, by outcome.',
        labelNames: ['outcome'],
        registers,
      }),
  )
  const failovers = once(
    registry,
    'shoal_mirror_failovers_total',
    name =>
      new Counter({
        name,
        help: 'Requests that a mirror failed, before its answer or in the middle of it, and that went on to the next source.',
        registers,
      }),
  )
  const mirrors = once(
    registry,
    'shoal_mirrors',
    name =>
      new Gauge({
        name,
        help: 'Mirrors and upstream proxies, by kind and by how they are doing.',
        labelNames: ['kind', 'state'],
        registers,
      }),
  )
  return {
    request: outcome => requests.inc({ outcome }),
    failure: kind => failures.inc({ kind }),
    ping: outcome => pings.inc({ outcome }),
    failover: () => failovers.inc(),
    tally: kind => tallyIn(mirrors, kind),
  }
}

function tallyIn(gauge: Gauge<'kind' | 'state'>, kind: MirrorKind): StatusTally {
  let counted: MirrorStatus | undefined
  const move = (status: MirrorStatus | undefined): void => {
    if (counted !== undefined) gauge.dec({ kind, state: counted })
    if (status !== undefined) gauge.inc({ kind, state: status })
    counted = status
  }
  return { set: move, remove: () => move(undefined) }
}
