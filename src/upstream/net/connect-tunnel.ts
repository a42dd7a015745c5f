import http from 'node:http'
import https from 'node:https'
import type { Socket } from 'node:net'
import tls from 'node:tls'
import type { buildConnector } from 'undici'
import { asError } from '../../core/index.ts'
import type { TlsConnectOptions } from './tls.ts'

/** Opens a tunnel to `host:port` through the HTTP proxy at `proxy`. Rejects with what a connection rejects with; a proxy that refuses is ECONNREFUSED. */
export function openTunnel(
  proxy: URL,
  authority: string,
  options: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined },
): Promise<Socket> {
  const { signal, timeoutMs } = options
  return new Promise((resolve, reject) => {
    const request = (proxy.protocol === 'https:' ? https : http).request({
      host: proxy.hostname.replace(/^\[|\]$/g, ''),
      port: proxy.port === '' ? (proxy.protocol === 'https:' ? 443 : 80) : Number(proxy.port),
      method: 'CONNECT',
      path: authority,
      headers: { host: authority, 'user-agent': 'shoal' },
      agent: false,
      timeout: timeoutMs,
      ...(signal === undefined ? {} : { signal }),
    })
    request.once('timeout', () => request.destroy(failure('the proxy did not answer', 'ETIMEDOUT')))
    request.once('error', reject)
    // Whatever the status: Node calls every answer to CONNECT a connection.
    request.once('connect', (response, socket) => {
      socket.setTimeout(0)
      if (response.statusCode === 200) resolve(socket)
      else {
        socket.destroy()
        reject(failure(`the proxy answered ${String(response.statusCode)} to CONNECT`, 'ECONNREFUSED'))
      }
    })
    request.end()
  })
}

function failure(message: string, code: string): Error {
  return Object.assign(new Error(message), { code })
}

/** For undici: TLS to the host, end to end, through an HTTP proxy. */
export function tunnelConnector(
  proxy: URL,
  options: { readonly timeoutMs: number; readonly tls: TlsConnectOptions },
): buildConnector.connector {
  return ({ hostname, port, servername }, callback) => {
    const host = hostname.replace(/^\[|\]$/g, '')
    const authority = `${host.includes(':') ? `[${host}]` : host}:${port === '' ? '443' : port}`
    openTunnel(proxy, authority, options).then(
      socket => {
        const name = options.tls.servername ?? servername
        const secured = tls.connect({
          ...options.tls,
          socket,
          host,
          ...(name === undefined ? {} : { servername: name }),
        })
        const fail = (error: Error): void => callback(error, null)
        secured.once('error', fail)
        secured.setTimeout(options.timeoutMs, () => secured.destroy(failure('no TLS in time', 'ETIMEDOUT')))
        secured.once('secureConnect', () => {
          secured.off('error', fail)
          secured.setTimeout(0)
          callback(null, secured)
        })
      },
      (error: unknown) => callback(asError(error), null),
    )
  }
}
