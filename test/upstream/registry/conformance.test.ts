import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { digestAlgorithm, digestHex, type Digest } from '../../../src/core/index.ts'
import { OciLayoutOrigin, RegistryOrigin } from '../../../src/upstream/index.ts'
import { blobSourceConformance, type SourceUnderTest } from '../../conformance/blob-source.ts'
import { MemorySource } from '../../support/memory-source.ts'
import { writeIndex } from '../../support/oci-layout-maker.ts'
import { startScriptedOrigin, type ScriptedOriginOptions } from '../../support/scripted-origin.ts'
import { DEFAULTS, keyOf, testDeps } from '../rig.ts'

const LOGIN = { username: 'node', password: 'the-password-of-the-node' }
const USERS = { [LOGIN.username]: LOGIN.password }

function registryConformance(name: string, options: ScriptedOriginOptions, login: object = {}): void {
  blobSourceConformance(name, async blobs => {
    const origin = await startScriptedOrigin({ blobs, ...options })
    const source = await RegistryOrigin.open(testDeps(), { ...DEFAULTS, ...login, host: origin.url })
    return {
      source,
      key: digest => keyOf(digest),
      close: async () => {
        await origin.close()
        await source.close()
      },
    }
  })
}

registryConformance('a registry', {})
registryConformance('a registry with anonymous tokens', { auth: { kind: 'token' } })
registryConformance(
  'a registry with tokens for the node',
  { auth: { kind: 'token', users: USERS, mayPull: user => user !== undefined } },
  LOGIN,
)
registryConformance('a registry with Basic', { auth: { kind: 'basic', users: USERS } }, LOGIN)
registryConformance('a registry that ignores Range', { fault: () => ({ ignoreRange: true }) })
registryConformance('a registry that sends chunked bodies', { fault: () => ({ chunked: true }) })
registryConformance('a registry that does not answer HEAD', {
  fault: ({ method }) => (method === 'HEAD' ? { status: 405 } : undefined),
})

blobSourceConformance('a registry that redirects to another host', async blobs => {
  const cdn = await startScriptedOrigin({ blobs })
  const origin = await startScriptedOrigin({ cdn, auth: { kind: 'token' } })
  const source = await RegistryOrigin.open(testDeps(), { ...DEFAULTS, host: origin.url })
  return {
    source,
    key: digest => keyOf(digest),
    close: async () => {
      await Promise.all([cdn.close(), origin.close()])
      await source.close()
    },
  }
})

blobSourceConformance('a directory with one layout', async blobs => {
  const root = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-layout-'))
  await writeLayout(root, blobs)
  return directorySource(root)
})

blobSourceConformance('a directory of layouts', async blobs => {
  const root = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-layouts-'))
  await writeLayout(path.join(root, 'library', 'test'), blobs)
  return directorySource(root)
})

blobSourceConformance('memory', blobs =>
  Promise.resolve({ source: new MemorySource(blobs), key: digest => keyOf(digest), close: () => Promise.resolve() }),
)

async function writeLayout(directory: string, blobs: ReadonlyMap<Digest, Uint8Array>): Promise<void> {
  for (const [digest, bytes] of blobs) {
    const folder = path.join(directory, 'blobs', digestAlgorithm(digest))
    await fs.mkdir(folder, { recursive: true })
    await fs.writeFile(path.join(folder, digestHex(digest)), bytes)
  }
  await fs.writeFile(path.join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  await writeIndex(directory, [])
}

async function directorySource(directory: string): Promise<SourceUnderTest> {
  return {
    source: await OciLayoutOrigin.open(testDeps(), { name: 'test', path: directory }),
    key: digest => keyOf(digest),
    close: () => fs.rm(directory, { recursive: true, force: true }),
  }
}
