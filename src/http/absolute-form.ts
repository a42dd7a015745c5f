import type { Socket } from 'node:net'

/** A request target in absolute-form (RFC 9112, 3.2.2): how clients ask a forward proxy. */
export interface AbsoluteForm {
  /** `host[:port]`, lower case, with whatever the client put before an `@`. */
  readonly authority: string
  readonly port: number
  /** The same target in origin-form. */
  readonly path: string
}

/** Undefined: it has another form. */
export function parseAbsoluteForm(url: string): AbsoluteForm | undefined {
  const match = /^(https?):\/\/([^/?#]*)(.*)$/is.exec(url)
  if (match === null) return undefined
  const [, scheme = '', authority = '', rest = ''] = match
  const port = /:(\d{1,5})$/.exec(authority)?.[1]
  return {
    authority: authority.toLowerCase(),
    port: port === undefined ? (scheme.toLowerCase() === 'https' ? 443 : 80) : Number(port),
    path: rest.startsWith('/') ? rest : `/${rest}`,
  }
}

/** Whether the authority is the very address on which the connection came in: then the client means us, and no proxy. */
export function isOwnAddress(form: AbsoluteForm, socket: Pick<Socket, 'localAddress' | 'localPort'>): boolean {
  if (socket.localPort !== form.port) return false
  // A listener for both families shows IPv4 in its IPv6 form.
  const local = (socket.localAddress ?? '').replace(/^::ffff:/, '')
  const host = form.authority.replace(/:\d*$/, '').replace(/^\[(.*)\]$/, '$1')
  return host === local || (host === 'localhost' && (local === '::1' || local.startsWith('127.')))
}
