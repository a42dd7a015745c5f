import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { errorCode } from '../../../src/core/index.ts'
import { isProgramName, ProgramRunner, sayable } from '../../../src/upstream/auth/program-runner.ts'
import { until } from '../../support/until.ts'
import { makePrograms, type Programs } from './programs.ts'

const ask = (file: string, input = ''): Parameters<ProgramRunner['run']>[0] => ({ file, args: ['get'], input })

/** Whether a process is there and not just waiting to be collected. */
async function isRunning(pid: string): Promise<boolean> {
  const stat = await fs.readFile(`/proc/${pid.trim()}/stat`, 'utf8').catch(() => undefined)
  return stat !== undefined && !/\) [ZX] /.test(stat)
}

async function childPid(programs: Programs): Promise<string> {
  const file = path.join(programs.directory, 'pid')
  await until(async () => (await fs.readFile(file, 'utf8').catch(() => '')).endsWith('\n'))
  return fs.readFile(file, 'utf8')
}

test('a program gets its arguments, its input and its environment, and no shell', async () => {
  await using programs = await makePrograms()
  await programs.write('p', 'printf "%s|%s|" "$1" "$EXTRA"; cat "$0.input"')
  const runner = new ProgramRunner({ env: programs.env }, { timeoutMs: 5_000 })
  const result = await runner.run({ file: 'p', args: ['a; b $PATH'], env: { EXTRA: 'x' }, input: 'told' })
  assert.deepEqual(result, { kind: 'exited', code: 0, stdout: 'a; b $PATH|x|told', said: '' })
})

test('an exit code is no failure of the run, and only a line of stderr is kept', async () => {
  await using programs = await makePrograms()
  await programs.write('p', 'echo out; echo "no such vault" >&2; echo more >&2; exit 3')
  const runner = new ProgramRunner({ env: programs.env }, { timeoutMs: 5_000 })
  assert.deepEqual(await runner.run(ask('p')), { kind: 'exited', code: 3, stdout: 'out\n', said: 'no such vault' })
})

test('a program that hangs is killed in time, with everything that it started', async () => {
  await using programs = await makePrograms()
  await programs.write('p', `sleep 600 & echo $! > ${programs.directory}/pid; wait`)
  const runner = new ProgramRunner({ env: programs.env }, { timeoutMs: 300 })
  const result = await runner.run(ask('p'))
  assert.deepEqual(result, { kind: 'failed', why: 'did not end within 300 ms' })
  const pid = await childPid(programs)
  await until(async () => !(await isRunning(pid)))
})

test('a program that prints without end is killed', async () => {
  await using programs = await makePrograms()
  await programs.write('p', 'exec yes secret')
  const runner = new ProgramRunner({ env: programs.env }, { timeoutMs: 10_000 })
  assert.deepEqual(await runner.run(ask('p')), { kind: 'failed', why: 'printed more than 65536 bytes' })
})

test('a program that does not exist, cannot be run or is killed is a failure', async () => {
  await using programs = await makePrograms()
  await programs.file('data', 'not a program')
  await programs.write('suicide', 'kill -9 $$')
  const runner = new ProgramRunner({ env: programs.env }, { timeoutMs: 5_000 })
  assert.deepEqual(await runner.run(ask('nowhere')), { kind: 'failed', why: 'could not be started (ENOENT)' })
  const data = await runner.run(ask(path.join(programs.directory, 'data')))
  assert.deepEqual(data, { kind: 'failed', why: 'could not be started (EACCES)' })
  assert.deepEqual(await runner.run(ask('suicide')), { kind: 'failed', why: 'was ended by SIGKILL' })
})

test('arguments that no program can be given are a failure', async () => {
  await using programs = await makePrograms()
  const runner = new ProgramRunner({ env: programs.env }, { timeoutMs: 5_000 })
  const result = await runner.run({ file: 'p', args: ['a\0b'], input: '' })
  assert.deepEqual(result, { kind: 'failed', why: 'could not be started (ERR_INVALID_ARG_VALUE)' })
})

test('input that nobody reads does no harm', async () => {
  await using programs = await makePrograms()
  await fs.writeFile(path.join(programs.directory, 'p'), '#!/bin/sh\nexec <&-\necho done\n', { mode: 0o755 })
  const runner = new ProgramRunner({ env: programs.env }, { timeoutMs: 5_000 })
  const result = await runner.run(ask('p', 'x'.repeat(1_000_000)))
  assert.equal(result.kind === 'exited' && result.stdout, 'done\n')
})

test('no more than four run at a time', async () => {
  await using programs = await makePrograms()
  const at = programs.directory
  await programs.write(
    'p',
    `[ -e ${at}/go ] && touch ${at}/late.$$ || touch ${at}/early.$$; while [ ! -e ${at}/go ]; do sleep 0.02; done`,
  )
  const runner = new ProgramRunner({ env: programs.env }, { timeoutMs: 10_000 })
  const runs = Array.from({ length: 6 }, () => runner.run(ask('p')))
  const count = async (what: string): Promise<number> =>
    (await fs.readdir(at)).filter(name => name.startsWith(what)).length
  await until(async () => (await count('early')) >= 4)
  await programs.file('go', '')
  await Promise.all(runs)
  assert.deepEqual([await count('early'), await count('late')], [4, 2])
})

test('closing ends what runs and refuses what comes, and may be repeated', async () => {
  await using programs = await makePrograms()
  await programs.write('p', `sleep 600 & echo $! > ${programs.directory}/pid; wait`)
  const runner = new ProgramRunner({ env: programs.env }, { timeoutMs: 60_000 })
  const running = runner.run(ask('p')).catch(errorCode)
  const pid = await childPid(programs)
  await runner.close()
  assert.equal(await running, 'ERR_CLOSED')
  await until(async () => !(await isRunning(pid)))
  assert.equal(await runner.run(ask('p')).catch(errorCode), 'ERR_CLOSED')
  await runner.close()
})

test('a name of a program leads nowhere else', () => {
  for (const name of ['ecr-login', 'osxkeychain', 'a.b_c-1']) assert.ok(isProgramName(name), name)
  for (const name of ['', '.', '..', '../x', 'a/b', 'a b', 'a;b', '$x', 'a\0', 'é'])
    assert.ok(!isProgramName(name), name)
})

test('what a program complains of is said without anything that could be a secret', () => {
  const said: [text: string, line: string][] = [
    ['\n  no such vault \nand more', 'no such vault'],
    ['cannot read /var/lib/kubelet/plugins/config.yaml', 'cannot read /var/lib/kubelet/plugins/config.yaml'],
    ['bad password: hunter2', 'bad password: …'],
    ['Authorization: Basic dXNlcjpw', 'Authorization: …'],
    ['password="hunter2" for x', 'password= …'],
    ['sent Basic dXNlcjpw', 'sent Basic …'],
    ['GET https://user:pw@host.test/x?sig=abc failed', 'GET https://host.test/x?… failed'],
    ['got eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9', 'got …'],
    ['\x1b[31mred', '?[31mred'],
  ]
  for (const [text, line] of said) assert.equal(sayable(text), line)
  assert.ok(sayable('word '.repeat(1_000)).length <= 160)
})

test('a program that hangs keeps nobody from another', async () => {
  await using programs = await makePrograms()
  await programs.write('hangs', 'exec sleep 600')
  await programs.write('works', 'echo done')
  const runner = new ProgramRunner({ env: programs.env }, { timeoutMs: 5_000 })
  const hanging = Array.from({ length: 8 }, () => runner.run(ask('hangs')).catch(errorCode))
  const result = await runner.run(ask('works'))
  assert.equal(result.kind === 'exited' && result.stdout, 'done\n')
  await runner.close()
  assert.deepEqual(new Set(await Promise.all(hanging)), new Set(['ERR_CLOSED']))
})
