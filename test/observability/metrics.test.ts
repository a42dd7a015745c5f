import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import { test } from 'node:test'
import { createMetrics, packageVersion } from '../../src/observability/index.ts'
import { repositoryFile } from '../core/repository.ts'

test('the process describes itself', async () => {
  const text = await createMetrics().metrics()
  for (const name of ['process_resident_memory_bytes', 'process_cpu_seconds_total', 'nodejs_eventloop_lag_seconds'])
    assert.match(text, new RegExp(`^${name} [0-9.e+-]+$`, 'm'))
  assert.ok(text.includes(`shoal_build_info{version="${packageVersion()}",node="${process.version}"} 1`))
})

test('two registries share nothing', () => {
  assert.notEqual(createMetrics(), createMetrics())
})

test('the version is that of the package, and unknown where there is none', async () => {
  const { version } = JSON.parse(await fs.readFile(repositoryFile('package.json'), 'utf8')) as { version: string }
  assert.equal(packageVersion(), version)
  assert.equal(packageVersion('/'), 'unknown')
})
