import assert from 'node:assert/strict'
import { test } from 'node:test'
import { downstreamHeaders, upstreamHeaders } from '../../../src/http/proxy/headers.ts'

const VIA = '1.1 shoal-test'

test('a request keeps the order and the case of what is meant for the origin', () => {
  const raw = [
    ...['hOsT', 'proxy.test', 'Accept', 'a', 'X-Dragonfly-Tag', 't', 'Proxy-Authorization', 'Basic x'],
    ...['ACCEPT', 'b', 'Connection', 'close, X-Private ', 'x-private', '1', 'TE', 'trailers', 'Trailer', 'X'],
    ...['Keep-Alive', '1', 'Upgrade', 'h2c', 'HTTP2-Settings', 'x', 'Transfer-Encoding', 'chunked'],
    ...['Expect', '100-continue', 'Host', 'second.test', 'Content-Length', '3', 'Via', '1.1 other'],
  ]
  assert.deepEqual(upstreamHeaders(raw, { host: 'a.test:81', via: VIA }), [
    ...['hOsT', 'a.test:81', 'Accept', 'a', 'ACCEPT', 'b', 'Content-Length', '3', 'Via', '1.1 other', 'Via', VIA],
  ])
})

test('a request without Host gets one', () => {
  assert.deepEqual(upstreamHeaders(['A', 'b'], { host: 'a.test', via: VIA }), ['Host', 'a.test', 'A', 'b', 'Via', VIA])
})

test('an answer loses what concerned the connection to the origin', () => {
  const raw = [
    ...['Set-Cookie', 'a', 'set-cookie', 'b', 'Connection', 'X-Hop', 'X-Hop', '1', 'Transfer-Encoding', 'chunked'],
    ...['Proxy-Authenticate', 'Basic', 'Content-Encoding', 'gzip', 'X-Dragonfly-Error-Type', 'backend'],
  ]
  assert.deepEqual(downstreamHeaders(raw, { via: VIA }), [
    ...['Set-Cookie', 'a', 'set-cookie', 'b', 'Content-Encoding', 'gzip'],
    ...['X-Dragonfly-Error-Type', 'backend', 'Via', VIA],
  ])
})
