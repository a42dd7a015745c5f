/** A fixed answer. */
export interface PingAnswer {
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

const API_BASE: PingAnswer = {
  headers: { 'Content-Type': 'application/json', 'Docker-Distribution-Api-Version': 'registry/2.0' },
  body: '{}',
}

function text(body: string): PingAnswer {
  return { headers: { 'Content-Type': 'text/plain; charset=utf-8' }, body }
}

/**
 * What clients ask to learn whether somebody is there, by path: the base of the pull API, and what dfdaemon's two generations answer. The
 * same on every listener, because people copy a ping_url from anywhere.
 */
export const PINGS: ReadonlyMap<string, PingAnswer> = new Map([
  ['/v2/', API_BASE],
  ['/v2', API_BASE],
  ['/server/ping', text('pong')],
  ['/healthy', text('ok')],
])
