import fs from 'node:fs/promises'
import { ShoalError } from '../../core/index.ts'

/** Linux counts the sectors of every block device in units of 512 bytes, whatever the device's own are (Documentation/block/stat). */
const SYS_SECTOR_BYTES = 512

/** Bytes of a block device or an image of one. `sysfs`: where the kernel tells of devices. */
export async function diskSize(handle: fs.FileHandle, sysfs = '/sys'): Promise<number> {
  const stats = await handle.stat({ bigint: true })
  if (!stats.isBlockDevice()) return Number(stats.size)
  const file = `${sysfs}/dev/block/${deviceNumber(stats.rdev)}/size`
  const sectors = Number((await fs.readFile(file, 'utf8')).trim())
  if (Number.isSafeInteger(sectors * SYS_SECTOR_BYTES) && sectors > 0) return sectors * SYS_SECTOR_BYTES
  throw new ShoalError('ERR_UPSTREAM_TRANSPORT', `${file} does not tell a size`, { details: { file } })
}

/** `major:minor`, packed as glibc's gnu_dev_makedev() does. */
export function deviceNumber(rdev: bigint): string {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n)
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n)
  return `${major}:${minor}`
}
