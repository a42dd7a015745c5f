import assert from 'node:assert/strict'
import net from 'node:net'
import { test } from 'node:test'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { errorCode, systemCode } from '../../../src/core/index.ts'
import { filteredLookup, isRefusedLiteral, publicAddresses } from '../../../src/upstream/net/addresses.ts'

const REFUSED = [
  '127.0.0.1',
  '127.8.9.10',
  '0.0.0.0',
  '10.1.2.3',
  '172.16.0.1',
  '172.31.255.255',
  '192.168.1.1',
  '169.254.169.254',
  '100.64.0.1',
  '224.0.0.1',
  '255.255.255.255',
  '::',
  '::1',
  'fe80::1',
  'fe80::1%eth0',
  'fc00::1',
  'fd00:ec2::254',
  'ff02::1',
  '::ffff:127.0.0.1',
  '::ffff:a9fe:a9fe',
  '0:0:0:0:0:ffff:10.0.0.1',
  '::10.0.0.1',
  '::ffff:0:10.0.0.1',
  '64:ff9b::10.0.0.1',
  '64:ff9b::a9fe:a9fe',
  '64:ff9b:1::7f00:1',
  '64:ff9b:1:a00:0:100::',
  '64:ff9b:1::808:808',
  '2002:7f00:1::',
  '2002:a9fe:a9fe::1',
  '2001:0:53aa:64c:0:0:0:1',
  'not an address',
  '',
]
const PASSED = ['8.8.8.8', '1.1.1.1', '172.32.0.1', '2606:4700::1111', '64:ff9b::8.8.8.8', '::ffff:8.8.8.8']

test('only public addresses pass, in whatever form they are written', () => {
  const passes = publicAddresses([])
  for (const address of REFUSED) assert.equal(passes(address), false, address)
  for (const address of PASSED) assert.equal(passes(address), true, address)
})

test('what the operator allows passes, also inside IPv6, and nothing beside it', () => {
  const passes = publicAddresses(['10.0.0.0/8', 'fd00:1::/32', '192.168.7.7'])
  for (const address of ['10.1.2.3', '::ffff:10.1.2.3', '64:ff9b::10.1.2.3', 'fd00:1::9', '192.168.7.7']) {
    assert.equal(passes(address), true, address)
  }
  for (const address of ['11.0.0.1', '172.16.0.1']) assert.equal(passes(address), address === '11.0.0.1', address)
  for (const address of ['192.168.7.8', 'fd00:2::9', '127.0.0.1']) assert.equal(passes(address), false, address)
})

test('an IPv4 address is judged alike in each IPv6 form that carries it', () => {
  const passes = publicAddresses([])
  fc.assert(
    fc.property(fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)), bytes => {
      const plain = bytes.join('.')
      const [high, low] = [(bytes[0] << 8) | bytes[1], (bytes[2] << 8) | bytes[3]].map(group => group.toString(16))
      for (const form of [`::ffff:${plain}`, `64:ff9b::${plain}`, `2002:${high}:${low}::1`]) {
        assert.equal(passes(form), passes(plain), form)
      }
    }),
  )
})

test('what is no CIDR is an error of the configuration', () => {
  for (const text of ['10.0.0.0/33', '::/129', 'example.test', '10.0.0.0/x', '10.0.0/8', '']) {
    assert.throws(
      () => publicAddresses([text]),
      (error: unknown) => errorCode(error) === 'ERR_CONFIG_INVALID',
      text,
    )
  }
})

test('a name is resolved to the addresses that pass, and to none when none does', async () => {
  const lookup = promisify(
    (
      name: string,
      options: net.LookupFunction extends (a: never, b: infer O, c: never) => void ? O : never,
      done: (error: Error | null, address: unknown) => void,
    ) => filteredLookup(publicAddresses(['127.0.0.1']))(name, options, done),
  )
  assert.equal(await lookup('localhost', { family: 4 }), '127.0.0.1')
  assert.deepEqual(await lookup('localhost', { family: 4, all: true }), [{ address: '127.0.0.1', family: 4 }])
  const refused = promisify(filteredLookup(publicAddresses([])))
  await assert.rejects(refused('localhost', {}), error => systemCode(error) === 'EHOSTUNREACH')
  await assert.rejects(refused('no-such-name.invalid', {}), error => systemCode(error) !== 'EHOSTUNREACH')
})

test('a connection to a name that leads home is not made', async () => {
  let connected = 0
  const server = net.createServer(socket => {
    connected += 1
    socket.destroy()
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as net.AddressInfo
  const socket = net.connect({ host: 'localhost', port, lookup: filteredLookup(publicAddresses([])) })
  const error = await new Promise<Error>(resolve => socket.once('error', resolve))
  assert.equal(systemCode(error), 'EHOSTUNREACH')
  server.close()
  assert.equal(connected, 0)
})

test('literal addresses are checked as a URL writes them', () => {
  const passes = publicAddresses([])
  for (const url of ['http://127.1/', 'http://[::ffff:127.0.0.1]/', 'http://2130706433/', 'http://0x7f.1/']) {
    assert.equal(isRefusedLiteral(new URL(url).hostname, passes), true, url)
  }
  assert.equal(isRefusedLiteral('registry.example', passes), false)
  assert.equal(isRefusedLiteral('[2606:4700::1111]', passes), false)
})
