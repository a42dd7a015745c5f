import { startShoal, type ShoalProcess } from '../test/support/processes.ts'
import { PREFIX, REGISTRY, REPOSITORY } from './blobs.ts'

/** Shoal with a fresh state and its defaults, in front of one registry that answers requests which name none, and of its mirrors. */
export function startMirror(origin: string, mirrors: readonly string[] = []): Promise<ShoalProcess> {
  return startShoal({
    config: {
      mirror: {
        default_registry: REGISTRY,
        blobs: [{ prefix: PREFIX, origin: REGISTRY, repository: REPOSITORY }],
      },
      registries: { [REGISTRY]: { host: origin, mirrors: mirrors.map(host => ({ host })) } },
    },
  })
}
