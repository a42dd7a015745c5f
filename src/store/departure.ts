import type { BlobContext } from './blob-context.ts'
import type { FileRef } from './layout.ts'

/** Takes the name away from a removed blob's file. False: it could not be; the next start deletes the file. Never rejects. */
export async function retireFile({ files, log }: BlobContext, ref: FileRef): Promise<boolean> {
  try {
    await files.retire(ref)
    return true
  } catch (err: unknown) {
    log.warn({ err, digest: ref.digest }, 'data file of a removed blob could not be renamed')
    return false
  }
}

/**
 * Deletes a retired file and then its rows; `bytes` of it were condemned. Its last reader must have left. Never rejects: what is left after
 * a failure is found in `doomed` by the next start; until then it counts as waiting for its deletion, because it is still on the disk.
 */
export async function eraseFile(context: BlobContext, ref: FileRef, bytes: number): Promise<void> {
  const { admission, batch, disk, files, index, log } = context
  try {
    await files.erase(ref)
    // Late rows of the digest must be there to be purged.
    await batch.flush()
    while (disk.guard(() => index.purge(ref)) === false) await new Promise(setImmediate)
    admission.erased(bytes)
  } catch (err: unknown) {
    log.warn({ err, digest: ref.digest }, 'data file of a removed blob could not be deleted')
  }
}
