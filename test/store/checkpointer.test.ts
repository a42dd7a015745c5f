import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CHECKPOINT_PAGES, Checkpointer } from '../../src/store/checkpointer.ts'
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
  const checkpointer = new Checkpointer({ flusher: thread, tasks, log: recordingLogger(lines) }, { file: 'x.db' })
  checkpointer.wrote(CHECKPOINT_PAGES - 1)
  assert.deepEqual(asked, [])
  checkpointer.wrote(1)
  // Written while the log is being moved: may still be in it afterwards, and counts.
  checkpointer.wrote(CHECKPOINT_PAGES - 1)
  assert.deepEqual(asked, ['x.db'])
  await tasks.idle()
  checkpointer.wrote(1)
  await tasks.idle()
  assert.equal(asked.length, 2)
  checkpointer.wrote(CHECKPOINT_PAGES)
  await tasks.idle()
  assert.equal(asked.length, 3)
  assert.deepEqual(
    lines.map(({ event }) => event),
    ['index checkpoint failed'],
  )
})
