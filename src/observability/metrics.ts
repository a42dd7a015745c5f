import process from 'node:process'
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import { packageVersion } from './version.ts'

/**
 * The registry that every room's metrics go into, with the process's own (resident memory, CPU seconds, event loop delay, descriptors,
 * garbage collection) and shoal_build_info in it. One for each process: the default metrics start observers that live as long as it does.
 */
export function createMetrics(): Registry {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const build = new Gauge({
    name: 'shoal_build_info',
    help: 'Always 1; the labels say what is running.',
    labelNames: ['version', 'node'],
    registers: [registry],
  })
  build.set({ version: packageVersion(), node: process.version }, 1)
  return registry
}
