import { Registry } from 'prom-client'
import { systemClock, type BlobSource } from '../../../src/core/index.ts'
import { MirroredOrigin, type Mirror } from '../../../src/upstream/mirrors/index.ts'
import { RegistryOrigin } from '../../../src/upstream/registry/registry-origin.ts'
import { blobSourceConformance } from '../../conformance/blob-source.ts'
import { startScriptedOrigin } from '../../support/scripted-origin.ts'
import { until } from '../../support/until.ts'
import { DEFAULTS, keyOf, TestLog } from '../rig.ts'
import { openMirror, openMirrorRig } from './rig.ts'

blobSourceConformance('a healthy mirror', async blobs => {
  const rig = await openMirrorRig({ blobs }, { health: { failureLimit: 1_000 } })
  return { source: whenUsable(rig.mirror), key: digest => keyOf(digest), close: async () => rig[Symbol.asyncDispose]() }
})

blobSourceConformance('a registry behind a mirror that has nothing and one that is dead', async blobs => {
  const [empty, server] = [await startScriptedOrigin(), await startScriptedOrigin({ blobs })]
  const deps = { log: new TestLog(), metrics: new Registry() }
  const urls = [empty.url, 'http://127.0.0.1:1']
  const mirrors = await Promise.all(urls.map(url => openMirror(deps, url)))
  const origin = await RegistryOrigin.open({ ...deps, clock: systemClock }, { ...DEFAULTS, host: server.url })
  const source = new MirroredOrigin(deps, { mirrors, origin })
  return {
    source,
    key: digest => keyOf(digest),
    close: async () => {
      await Promise.all([empty.close(), server.close()])
      await source.close()
    },
  }
})

/** The mirror, asked only when it has recovered from what the last question did to it. */
function whenUsable(mirror: Mirror): BlobSource {
  const ready = (): Promise<void> => until(() => mirror.isUsable)
  return {
    name: mirror.name,
    stat: (...asked) => ready().then(() => mirror.stat(...asked)),
    open: (...asked) => ready().then(() => mirror.open(...asked)),
    begin: (...asked) => ready().then(() => mirror.begin?.(...asked)),
  }
}
