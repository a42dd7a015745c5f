import fs from 'node:fs/promises'
import { ShoalError, systemCode } from '../../core/index.ts'

/** Bytes of a file, or of what a link leads to. Undefined: there is none, or something else. Throws ERR_UPSTREAM_TRANSPORT. */
export async function fileSize(file: string): Promise<number | undefined> {
  try {
    const stats = await fs.stat(file)
    return stats.isFile() ? stats.size : undefined
  } catch (error: unknown) {
    const code = systemCode(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw unreadable(file, error)
  }
}

/** ERR_UPSTREAM_TRANSPORT. */
export function unreadable(file: string, cause: unknown): ShoalError {
  return new ShoalError('ERR_UPSTREAM_TRANSPORT', `cannot read ${file} (${systemCode(cause) ?? 'unknown'})`, {
    cause,
    details: { file },
  })
}
