import { Registry } from 'prom-client'
import { request } from 'undici'
import { systemClock, type Clock } from '../../../src/core/index.ts'
import { Mirror, type ClosableOrigin, type MirrorSettings } from '../../../src/upstream/mirrors/index.ts'
import { RegistryOrigin } from '../../../src/upstream/registry/registry-origin.ts'
import { FakeOrigin } from '../../support/fake-origin.ts'
import { startScriptedOrigin, type ScriptedOrigin, type ScriptedOriginOptions } from '../../support/scripted-origin.ts'
import { DEFAULTS, TestLog } from '../rig.ts'

export const HEALTH = {
  healthCheckIntervalMs: 20,
  failureLimit: 5,
  healthCheckPauseElapsedMs: 60_000,
  connectTimeoutMs: 1_000,
} as const

export type MirrorChanges = Partial<Omit<MirrorSettings, 'health'>> & {
  readonly health?: Partial<MirrorSettings['health']>
}

export function mirrorSettings(host: string, { health, ...changes }: MirrorChanges = {}): MirrorSettings {
  return {
    name: `mirror:${host}`,
    registry: 'registry.test',
    host,
    capabilities: ['pull', 'resolve'],
    health: { ...HEALTH, ...health },
    ...changes,
  }
}

export interface MirrorRig extends AsyncDisposable {
  readonly server: ScriptedOrigin
  readonly mirror: Mirror
  readonly log: TestLog
  readonly metrics: Registry
}

/** A scripted server, and the mirror that it is. Pings ask for /v2/, which the server sees as requests of the kind `other`. */
export async function openMirrorRig(
  scripted: ScriptedOriginOptions = {},
  changes: MirrorChanges = {},
): Promise<MirrorRig> {
  const server = await startScriptedOrigin(scripted)
  const log = new TestLog()
  const metrics = new Registry()
  const mirror = await openMirror({ log, metrics }, server.url, changes)
  return {
    server,
    mirror,
    log,
    metrics,
    [Symbol.asyncDispose]: async () => {
      await server.close()
      await mirror.close()
    },
  }
}

/** The mirror at `url`. */
export async function openMirror(
  { log, metrics }: { readonly log: TestLog; readonly metrics: Registry },
  url: string,
  changes: MirrorChanges = {},
): Promise<Mirror> {
  const inner = await RegistryOrigin.open(
    { log, metrics: new Registry(), clock: systemClock },
    { ...DEFAULTS, host: url, retries: 0, idleTimeoutMs: 30_000 },
  )
  const ping = async ({ signal }: { signal: AbortSignal }): Promise<number> => {
    const { body, statusCode } = await request(`${url}/v2/`, { signal, reset: true })
    await body.dump()
    return statusCode
  }
  return new Mirror({ log, metrics, clock: systemClock, inner, ping }, mirrorSettings(new URL(url).host, changes))
}

export class ClosableFake extends FakeOrigin {
  closed = 0

  close(): Promise<void> {
    this.closed += 1
    return Promise.resolve()
  }
}

/** A mirror that is a fake, and whose pings a test answers. */
export function fakeMirror(
  inner: ClosableOrigin,
  options: {
    readonly clock?: Clock
    readonly log?: TestLog
    readonly metrics?: Registry
    readonly ping?: (options: { signal: AbortSignal }) => Promise<number>
    readonly changes?: MirrorChanges
  } = {},
): Mirror {
  const { changes, clock = systemClock, log = new TestLog(), metrics = new Registry() } = options
  const ping = options.ping ?? ((): Promise<number> => Promise.resolve(200))
  return new Mirror({ log, metrics, clock, inner, ping }, mirrorSettings(`${inner.name}:5000`, changes))
}
