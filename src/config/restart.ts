import type { Config } from './config.ts'

/** What a running daemon keeps as it was at its start, however the configuration changes. */
const FIXED: Readonly<Record<string, (config: Config) => unknown>> = {
  mirror: ({ mirror }) => mirror,
  health: ({ health }) => health,
  admin: ({ admin }) => admin,
  state: ({ state }) => state,
  store: ({ store }) => store,
  manifests: ({ manifests }) => manifests,
  'proxy.enabled': ({ proxy }) => proxy.enabled,
  'proxy.intercept': ({ proxy }) => proxy.intercept,
  'log.access': ({ log }) => log.access,
}

/** The tables and keys that differ between two configurations and take a restart to come into force. */
export function needingRestart(before: Config, after: Config): string[] {
  return Object.entries(FIXED)
    .filter(([, part]) => JSON.stringify(part(before)) !== JSON.stringify(part(after)))
    .map(([key]) => key)
}
