import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { test } from 'node:test'
import { openProxy } from './proxy-rig.ts'

test('a client that does not let go of a refusal is cut', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  await using rig = await openProxy()
  const socket = net.connect({ host: '127.0.0.1', port: rig.port, allowHalfOpen: true })
  socket.write('CONNECT nonsense HTTP/1.1\r\nHost: x\r\n\r\n')
  await once(socket.resume(), 'end')
  socket.write('still here')
  t.mock.timers.tick(5000)
  // Whoever writes to a connection that is gone is told so.
  const poke = setInterval(() => socket.write('x'), 5)
  const [error] = (await once(socket, 'error')) as [Error]
  clearInterval(poke)
  assert.match(error.message, /EPIPE|ECONNRESET/)
})
