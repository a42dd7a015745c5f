import net from 'node:net'

/** Where a server listens. */
export type ListenAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }

/** Bytes that fit in sockaddr_un.sun_path with its final NUL (Linux, unix(7)). */
const UNIX_PATH_MAX = 107
const HOST_NAME = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/i

/** `127.0.0.1:65001`, `[::1]:65001`, `localhost:0` or `unix:/run/shoal/mirror.sock`. Undefined when it is none of them. */
export function parseListenAddress(text: string): ListenAddress | undefined {
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length)
    return isSocketPath(path) ? { kind: 'unix', path } : undefined
  }
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]]+)):([0-9]{1,5})$/i.exec(text)
  if (match === null) return undefined
  const [, six, host] = match
  const port = Number(match[3])
  if (port > 65_535) return undefined
  if (six !== undefined) return net.isIPv6(six) ? { kind: 'tcp', host: six, port } : undefined
  if (host === undefined || !isHost(host)) return undefined
  return { kind: 'tcp', host, port }
}

/** Whether a unix socket can have this path. */
export function isSocketPath(text: string): boolean {
  return text.startsWith('/') && !text.includes('\0') && Buffer.byteLength(text) <= UNIX_PATH_MAX
}

/** The inverse of parseListenAddress. */
export function formatListenAddress(address: ListenAddress): string {
  if (address.kind === 'unix') return `unix:${address.path}`
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`
}

/** All digits and dots must be an IPv4 address: `300.1.1.1` is a typing error, not a name. */
function isHost(text: string): boolean {
  return /^[0-9.]+$/.test(text) ? net.isIPv4(text) : HOST_NAME.test(text)
}
