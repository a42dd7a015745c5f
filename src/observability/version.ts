import fs from 'node:fs'
import path from 'node:path'

/** The version in shoal's own package.json, the nearest above this file. Synchronous; meant for the start of a process. */
export function packageVersion(from: string = import.meta.dirname): string {
  const file = path.join(from, 'package.json')
  if (fs.existsSync(file)) {
    const manifest = JSON.parse(fs.readFileSync(file, 'utf8')) as { name?: string; version?: string }
    if (manifest.name === 'shoal' && manifest.version !== undefined) return manifest.version
  }
  const parent = path.dirname(from)
  return parent === from ? 'unknown' : packageVersion(parent)
}
