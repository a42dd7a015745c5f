import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Checkpointer } from '../../src/store/checkpointer.ts'
import type { DiskThread } from '../../src/store/disk-thread.ts'
import { Tasks } from '../../src/store/tasks.ts'
import { recordingLogger, systemError, type LogLine } from './harness.ts'

test('the log is moved when enough is in it, one run at a time, and a failure is logged', async () => {
  const lines: LogLine[] = []
  const asked: string[] = []
  const outcomes: (Error | undefined)[] = [undefined, systemError('SQLITE_IOERR'), systemError('ECANCELED')]
  const thread = {
    checkpoint: async (file: string) => {
      asked.push(file)
      await Promise.resolve()
      const outcome = outcomes.shift()
      if (outcome !== undefined) throw outcome
    },
  } as unknown as DiskThread
  const tasks = new Tasks()
  const checkpointer = new Checkpointer({ thread, tasks, log: recordingLogger(lines) }, { file: 'x.db' })
  checkpointer.wrote(4095)
  assert.deepEqual(asked, [])
  checkpointer.wrote(1)
  checkpointer.wrote(5000)
  assert.deepEqual(asked, ['x.db'])
  await tasks.idle()
  checkpointer.wrote(4096)
  await tasks.idle()
  checkpointer.wrote(4096)
  await tasks.idle()
  assert.equal(asked.length, 3)
  assert.deepEqual(
    lines.map(({ event }) => event),
    ['index checkpoint failed'],
  )
})
