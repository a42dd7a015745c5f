import { startShoal, type ShoalProcess } from '../test/support/processes.ts'

/** Shoal with a fresh state and its defaults, in front of one registry that answers requests which name none. */
export function startMirror(origin: string): Promise<ShoalProcess> {
  const name = 'bench.test'
  return startShoal({ config: { mirror: { default_registry: name }, registries: { [name]: { host: origin } } } })
}
