import fs from 'node:fs/promises'

/** USER_HZ: what /proc counts CPU time in on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100

export interface Usage {
  readonly cpuSeconds: number
  /** Resident set; for several processes the sum, so shared pages count more than once. */
  readonly rssBytes: number
}

/** CPU time since its start and memory of a process and its children, as /proc tells. */
export async function usageOf(pid: number): Promise<Usage> {
  const all = await Promise.all([pid, ...(await childrenOf(pid))].map(usageOfOne))
  return {
    cpuSeconds: all.reduce((sum, usage) => sum + usage.cpuSeconds, 0),
    rssBytes: all.reduce((sum, usage) => sum + usage.rssBytes, 0),
  }
}

async function childrenOf(pid: number): Promise<number[]> {
  const text = await fs.readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')
  return text
    .split(' ')
    .filter(word => word !== '')
    .map(Number)
}

async function usageOfOne(pid: number): Promise<Usage> {
  const stat = await fs.readFile(`/proc/${pid}/stat`, 'utf8')
  // The command in parentheses may hold anything; after it come field 3 (state) and on: utime is 14, stime 15 (proc(5)).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const status = await fs.readFile(`/proc/${pid}/status`, 'utf8')
  return {
    cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND,
    rssBytes: Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024,
  }
}
