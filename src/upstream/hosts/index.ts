export { hostsSignature, readHosts, type HostsDirectory, type HostsEntry } from './hosts-directory.ts'
export type { HostTarget } from './hosts-file.ts'
export { DEFAULT_HOST } from './scan.ts'
