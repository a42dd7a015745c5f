export { Health, type ComponentHealth, type Readiness } from './health.ts'
export { openLogger, type LoggerOptions, type RootLogger } from './log.ts'
export { createMetrics } from './metrics.ts'
export { packageVersion } from './version.ts'
