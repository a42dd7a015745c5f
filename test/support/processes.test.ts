import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import net from 'node:net'
import { once } from 'node:events'
import { test } from 'node:test'
import { Child, findTool, freePort, run, skipWithout } from './processes.ts'

const STUBBORN = `process.on('SIGTERM', () => console.log('no')); console.log('up'); setInterval(() => {}, 1000)`

/** Whether a process runs; one that has ended and waits for its parent to notice does not. */
async function isAlive(pid: number): Promise<boolean> {
  const stat = await fs.readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  return stat !== undefined && !/\) [ZX] /.test(stat)
}

test('a child that ignores SIGTERM is killed after its grace', async () => {
  await using child = await Child.start(process.execPath, ['-e', STUBBORN])
  await child.waitForLine(line => (line === 'up' ? true : undefined))
  assert.deepEqual(await child.stop({ graceMs: 50 }), { code: null, signal: 'SIGKILL' })
  assert.equal(child.running, false)
  assert.equal(await isAlive(child.pid), false)
  assert.deepEqual(child.lines, ['up', 'no'])
})

test('a child whose parent is killed dies with it', { skip: await skipWithout(['setpriv']) }, async () => {
  const door = JSON.stringify(new URL('processes.js', import.meta.url).href)
  const parentSource = `
    const { Child } = await import(${door})
    const child = await Child.start(process.execPath, ['-e', ${JSON.stringify(STUBBORN)}])
    await child.waitForLine(line => line === 'up' ? true : undefined)
    console.log(child.pid)
    await child.exited`
  await using parent = await Child.start(process.execPath, ['--input-type=module', '-e', parentSource])
  const pid = Number(await parent.waitForLine(line => (/^\d+$/.test(line) ? line : undefined)))
  assert.equal(await isAlive(pid), true)
  process.kill(parent.pid, 'SIGKILL')
  const deadline = Date.now() + 5000
  while ((await isAlive(pid)) && Date.now() < deadline) await parent.exited
  assert.equal(await isAlive(pid), false)
})

test('waiting for a line that never comes says what the child did instead', async () => {
  await using child = await Child.start(process.execPath, ['-e', `console.error('my last words'); process.exit(3)`])
  await assert.rejects(
    child.waitForLine(() => undefined),
    /ended early\n {2}my last words/,
  )
  assert.deepEqual(await child.exited, { code: 3, signal: null })
  await using silent = await Child.start(process.execPath, ['-e', STUBBORN])
  await assert.rejects(
    silent.waitForLine(() => undefined, { timeoutMs: 20 }),
    /did not say in time/,
  )
  silent.kill('SIGKILL')
})

test('waiting for a port ends when the child does', async () => {
  const port = await freePort()
  await using child = await Child.start(process.execPath, ['-e', ''])
  await assert.rejects(child.waitForPort(port), /ended early/)
  await using server = await Child.start(process.execPath, [
    '-e',
    `setTimeout(() => require('net').createServer().listen(${port}, '127.0.0.1'), 10)`,
  ])
  await server.waitForPort(port)
  const socket = net.connect(port, '127.0.0.1')
  await once(socket, 'connect')
  socket.destroy()
})

test('a tool that is missing is named with its package', async () => {
  assert.equal(await findTool('no-such-tool'), undefined)
  assert.equal(await skipWithout([]), false)
  assert.equal(await skipWithout(['no-such-tool']), 'needs no-such-tool (no-such-tool)')
  await assert.rejects(run('no-such-tool', []), /no-such-tool is not installed \(Debian package no-such-tool\)/)
  await assert.rejects(run('sh', ['-c', 'echo because >&2; exit 1']), /sh -c failed: because/)
})
