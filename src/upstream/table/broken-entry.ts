import type { Origin, ShoalError } from '../../core/index.ts'
import type { Entry } from './entry.ts'

/** Stands for a name whose hosts.toml cannot be used: everything fails with what is wrong with it, so that clients fall back. */
export function brokenEntry(name: string, error: ShoalError): Entry {
  const fail = (): Promise<never> => Promise.reject(error)
  const origin: Origin = {
    name: `registry:${name}`,
    stat: fail,
    open: fail,
    statManifest: fail,
    getManifest: fail,
    list: fail,
  }
  return { origin, sources: [origin], close: () => Promise.resolve() }
}
