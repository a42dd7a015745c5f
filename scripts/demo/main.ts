// A mirror in front of an OCI layout that we make ourselves: the image is pulled twice, and everything is removed again.
import { openProgress, type Progress } from '../../src/cli/progress.ts'
import { describeError } from '../../src/core/index.ts'
import { startShoal, temporaryDirectory } from '../../test/support/processes.ts'
import { makeImage } from './image.ts'
import { pullImage, type Pull } from './pull.ts'
import { renderPulls } from './report.ts'

const MIB = 1024 * 1024
const FILE_BYTES = [96, 64, 32, 8].map(mib => mib * MIB)
const TOTAL_BYTES = FILE_BYTES.reduce((sum, bytes) => sum + bytes, 0)
/** The origin's name; an image of it is `demo/image:latest`. */
const REGISTRY = 'demo'
const REPOSITORY = 'image'
const TAG = 'latest'

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

/** Runs `work` with a callback that moves a progress bar; the bar is ended whatever happens. */
async function withProgress<T>(label: string, work: (onProgress: (bytes: number) => void) => Promise<T>): Promise<T> {
  const progress: Progress = openProgress(process.stdout, { label, total: TOTAL_BYTES })
  let done = 0
  try {
    return await work(bytes => {
      done += bytes
      progress.update(Math.min(done, TOTAL_BYTES))
    })
  } finally {
    progress.finish()
  }
}

async function demo(signal: AbortSignal): Promise<void> {
  await using layout = await temporaryDirectory('shoal-demo')
  await withProgress('making an image', onProgress =>
    makeImage(layout.path, { tag: TAG, fileBytes: FILE_BYTES, onProgress, signal }),
  )
  signal.throwIfAborted()
  await using shoal = await startShoal({
    config: { origins: { [REGISTRY]: { type: 'oci-layout', path: layout.path } } },
  })
  say(`\nshoal serve (pid ${shoal.pid}) listens on ${shoal.mirror}; its origin "${REGISTRY}" is that directory.\n`)

  const pulls = new Map<string, Pull>()
  for (const name of ['cold', 'warm']) {
    const pull = await withProgress(`pulling it, ${name}`, onProgress =>
      pullImage({
        mirror: shoal.mirror,
        registry: REGISTRY,
        repository: REPOSITORY,
        tag: TAG,
        onProgress,
        signal,
      }),
    )
    pulls.set(name, pull)
  }
  say(`\nEvery byte was compared with its sha256.\n\n${renderPulls(pulls)}`)
}

const interrupted = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => interrupted.abort())
try {
  await demo(interrupted.signal)
  say('The mirror has stopped; the image and the state directory are removed.')
} catch (error: unknown) {
  say(
    interrupted.signal.aborted
      ? '\nInterrupted; nothing is left behind.'
      : `\nThe demo failed: ${describeError(error)}`,
  )
  process.exitCode = interrupted.signal.aborted ? 130 : 1
}
