import type { IncomingMessage } from 'node:http'

/** What concerns one connection only (RFC 9110, 7.6.1), besides what Connection names and everything that begins with `proxy-`. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'http2-settings',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

/**
 * A client's headers as they go upstream, in their order and case: for `host`, with `via` added, without hints to caches of Shoal's kind
 * and without Expect, which has been answered.
 */
export function upstreamHeaders(raw: readonly string[], { host, via }: { host: string; via: string }): string[] {
  const headers: string[] = []
  let hasHost = false
  for (const [name, value, lower] of endToEnd(raw)) {
    if (lower === 'expect' || lower.startsWith('x-dragonfly-') || (lower === 'host' && hasHost)) continue
    hasHost ||= lower === 'host'
    headers.push(name, lower === 'host' ? host : value)
  }
  if (!hasHost) headers.unshift('Host', host)
  headers.push('Via', via)
  return headers
}

/** An answer's headers as they go to the client. */
export function downstreamHeaders(raw: readonly string[], { via }: { via: string }): string[] {
  const headers: string[] = []
  for (const [name, value] of endToEnd(raw)) headers.push(name, value)
  headers.push('Via', via)
  return headers
}

/** Whether a request carries `via` in its Via headers: it has come through here before. */
export function hasPassed(request: IncomingMessage, via: string): boolean {
  return request.headers.via?.split(',').some(hop => hop.trim() === via) ?? false
}

/** Whether a body follows a request's head (RFC 9112, 6.3). */
export function hasBody(request: IncomingMessage): boolean {
  const { headers } = request
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

function* endToEnd(raw: readonly string[]): Generator<[name: string, value: string, lower: string]> {
  const named = new Set<string>()
  for (const [, value, lower] of fields(raw)) {
    if (lower === 'connection') for (const option of value.split(',')) named.add(option.trim().toLowerCase())
  }
  for (const field of fields(raw)) {
    const lower = field[2]
    if (!HOP_BY_HOP.has(lower) && !lower.startsWith('proxy-') && !named.has(lower)) yield field
  }
}

function* fields(raw: readonly string[]): Generator<[name: string, value: string, lower: string]> {
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] ?? ''
    yield [name, raw[index + 1] ?? '', name.toLowerCase()]
  }
}
