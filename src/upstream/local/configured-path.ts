import type { Stats } from 'node:fs'
import fs from 'node:fs/promises'
import path from 'node:path'
import { ShoalError, systemCode } from '../../core/index.ts'

/**
 * What a key of the configuration names, as an absolute path; `is` says whether it is what it should be, `kind` what that is called.
 * Throws ERR_CONFIG_INVALID, naming `key`.
 */
export async function configuredPath(
  key: string,
  text: string,
  { is, kind }: { readonly is: (stats: Stats) => boolean; readonly kind: string },
): Promise<string> {
  const absolute = path.resolve(text)
  try {
    if (is(await fs.stat(absolute))) return absolute
  } catch (error: unknown) {
    const code = systemCode(error) ?? 'unknown'
    throw new ShoalError('ERR_CONFIG_INVALID', `${key} cannot be read (${code})`, { cause: error })
  }
  throw new ShoalError('ERR_CONFIG_INVALID', `${key} is not ${kind}`)
}

export const A_DIRECTORY = { is: (stats: Stats): boolean => stats.isDirectory(), kind: 'a directory' }
export const A_FILE = { is: (stats: Stats): boolean => stats.isFile(), kind: 'a file' }
export const A_DISK = {
  is: (stats: Stats): boolean => stats.isFile() || stats.isBlockDevice(),
  kind: 'a block device or a file',
}
