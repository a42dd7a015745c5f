import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import type { Config } from '../../src/config/index.ts'
import { repositoryFile } from '../core/repository.ts'
import { load, NO_TLS } from './loading.ts'

const EXAMPLES = repositoryFile('config/examples')
const env = { REGISTRY_PASSWORD: 'hunter2' }

const loadExample = async (name: string): Promise<Config> =>
  (await load({ file: path.join(EXAMPLES, name), env })).config

test('every example loads, without a warning', async () => {
  const names = await fs.readdir(EXAMPLES)
  assert.ok(names.length >= 2)
  for (const name of names) assert.deepEqual((await load({ file: path.join(EXAMPLES, name), env })).warnings, [], name)
})

test('five lines take whatever registry an image names from the internal one', async () => {
  const text = await fs.readFile(path.join(EXAMPLES, 'internal-registry.toml'), 'utf8')
  assert.equal(text.split('\n').filter(line => line !== '' && !line.startsWith('#')).length, 5)
  const { registries } = await loadExample('internal-registry.toml')
  assert.deepEqual(registries, {
    '*': {
      host: 'http://registry.internal:5000',
      username: 'node',
      password: 'hunter2',
      visibility: 'shared',
      mirrors: [],
      tls: NO_TLS,
    },
  })
})

test('what nydusd is configured with can be said in its own words', async () => {
  const { registries, origins, mirror } = await loadExample('nydus.toml')
  assert.deepEqual(
    registries['registry.corp.example']?.mirrors.map(({ host, healthCheckIntervalMs }) => [
      host,
      healthCheckIntervalMs,
    ]),
    [
      ['http://10.0.0.5:5000', 5000],
      ['http://10.0.0.6:4001', 5000],
    ],
  )
  assert.equal(origins['models']?.type, 's3')
  assert.deepEqual(
    mirror.blobs.map(blob => ('prefix' in blob ? blob.prefix : blob.socket)),
    ['/models', '/run/shoal/bootstrap.sock'],
  )
})
