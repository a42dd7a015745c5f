import assert from 'node:assert/strict'
import { once } from 'node:events'
import fs from 'node:fs/promises'
import http from 'node:http'
import os from 'node:os'
import path from 'node:path'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { mirrorsCommand } from '../../src/cli/mirrors.ts'

const SINCE = Date.UTC(2026, 0, 2, 3, 4, 5)

const REGISTRIES = [
  {
    name: 'docker.io',
    host: 'registry-1.docker.io',
    mirrors: [
      { host: '10.0.0.5:5000', kind: 'mirror', status: 'healthy', failures: 1, failureLimit: 5, since: SINCE },
      {
        host: '10.0.0.6:5000',
        kind: 'mirror',
        status: 'down',
        failures: 5,
        failureLimit: 5,
        since: SINCE,
        lastError: '10.0.0.6:5000 could not be talked to (ECONNREFUSED)',
      },
    ],
    proxy: { host: 'proxy:3128', kind: 'proxy', status: 'paused', failures: 1, failureLimit: 1, since: SINCE },
  },
  { name: 'quay.io', host: 'quay.io', mirrors: [] },
]

class Collector extends Writable {
  text = ''

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString()
    done()
  }
}

/** Runs `shoal mirrors ...args` on a state directory where a daemon answers with `answers`, by path; none: there is no daemon. */
async function runMirrors(args: string[], answers?: Readonly<Record<string, object>>): Promise<string> {
  const state = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-cli-'))
  const server = http.createServer((request, response) => {
    const answer = answers?.[request.url ?? '']
    response.writeHead(answer === undefined ? 404 : 200, { 'content-type': 'application/json' })
    response.end(JSON.stringify(answer ?? { message: 'no such path' }))
  })
  try {
    if (answers !== undefined) {
      server.listen(path.join(state, 'admin.sock'))
      await once(server, 'listening')
    }
    const stdout = new Collector()
    const command = mirrorsCommand({ stdout, stderr: new Collector(), env: {} }).exitOverride()
    await command.parseAsync([...args, '--set', `state.path=${state}`], { from: 'user' })
    return stdout.text
  } finally {
    server.close()
    await fs.rm(state, { recursive: true })
  }
}

function daemonWith(registries: readonly object[]): Readonly<Record<string, object>> {
  return { '/api/v1/status': { daemon: true }, '/api/v1/mirrors': { registries } }
}

test('mirrors prints a line for each mirror and each proxy', async () => {
  const at = new Date(SINCE).toISOString()
  const lines = (await runMirrors([], daemonWith(REGISTRIES))).trimEnd().split('\n')
  assert.deepEqual(
    lines.map(line => line.trim().split(/\s{2,}/)),
    [
      ['REGISTRY', 'HOST', 'KIND', 'STATUS', 'FAILURES', 'SINCE', 'LAST ERROR'],
      ['docker.io', '10.0.0.5:5000', 'mirror', 'healthy', '1/5', at],
      [
        'docker.io',
        '10.0.0.6:5000',
        'mirror',
        'down',
        '5/5',
        at,
        '10.0.0.6:5000 could not be talked to (ECONNREFUSED)',
      ],
      ['docker.io', 'proxy:3128', 'proxy', 'paused', '1/1', at],
    ],
  )
})

test('mirrors --json prints what the daemon says', async () => {
  const printed: unknown = JSON.parse(await runMirrors(['--json'], daemonWith(REGISTRIES)))
  assert.deepEqual(printed, { daemon: true, registries: REGISTRIES })
})

test('mirrors says so when no registry has any', async () => {
  assert.equal(
    await runMirrors([], daemonWith([{ name: 'quay.io', mirrors: [] }])),
    'no registry has a mirror or a proxy\n',
  )
})

test('mirrors says so when no daemon runs', async () => {
  assert.equal(await runMirrors([]), 'daemon: not running\n')
  assert.deepEqual(JSON.parse(await runMirrors(['--json'])), { daemon: false, registries: [] })
})
