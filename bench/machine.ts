import os from 'node:os'
import { projectRoot, run } from '../test/support/processes.ts'

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryBytes: number
  readonly kernel: string
  readonly node: string
  readonly commit: string
}

export async function describeMachine(): Promise<Machine> {
  return {
    cpu: os.cpus()[0]?.model ?? 'unknown',
    cores: os.cpus().length,
    memoryBytes: os.totalmem(),
    kernel: `${os.type()} ${os.release()}`,
    node: process.version,
    commit: await describeCommit(),
  }
}

async function describeCommit(): Promise<string> {
  try {
    const git = ['-C', projectRoot]
    const head = await run('git', [...git, 'rev-parse', '--short', 'HEAD'])
    const changes = await run('git', [...git, 'status', '--porcelain', '--untracked-files=no'])
    return `${head.stdout.trim()}${changes.stdout.trim() === '' ? '' : ', with uncommitted changes'}`
  } catch {
    return 'unknown (no git work tree)'
  }
}
