import { localAddressOf } from '../net/local-address.ts'
import { REGISTRY_ITSELF, type HostTarget } from './hosts-file.ts'

/**
 * Where a registry on this machine is, when its directory names no server: containerd takes it to speak plain HTTP, or HTTPS that nobody
 * vouches for on HTTPS's own port. Certificates that were configured say that it is HTTPS, and are then insisted on. Other registries keep
 * what they have.
 */
export function localServer(registry: string, server: HostTarget | undefined): HostTarget | undefined {
  if (server?.host !== undefined || !URL.canParse(`https://${registry}`)) return server
  const url = new URL(`https://${registry}`)
  if (localAddressOf(url) !== 'loopback') return server
  const target = server ?? REGISTRY_ITSELF
  const certified = target.tls.ca.length > 0 || target.tls.clients.length > 0
  // A URL does not keep the port that its scheme has anyway.
  const secure = certified || url.port === ''
  return {
    ...target,
    host: `${secure ? 'https' : 'http'}://${registry}`,
    tls: { ...target.tls, skipVerify: target.tls.skipVerify || !certified },
  }
}
