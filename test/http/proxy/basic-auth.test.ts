import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { basicGate } from '../../../src/http/proxy/basic-auth.ts'

function basic(text: string): string {
  return `Basic ${Buffer.from(text).toString('base64')}`
}

test('without a user name everybody passes', () => {
  const gate = basicGate({})
  assert.ok(gate(undefined))
  assert.ok(gate('nonsense'))
})

test('only the right pair passes, in whatever case the scheme is written', () => {
  const gate = basicGate({ username: 'node', password: 'p:\u00e4ss' })
  assert.ok(gate(basic('node:p:\u00e4ss')))
  assert.ok(gate(basic('node:p:\u00e4ss').replace('Basic', 'bASIC')))
  for (const header of [
    undefined,
    '',
    'Basic',
    'Basic ',
    'Basic !!!',
    Buffer.from('node:p:\u00e4ss').toString('base64'),
    basic('node:'),
    basic('node'),
    basic(':p:\u00e4ss'),
    basic('node:p:\u00e4ss '),
    basic('node:p:\u00e4s'),
    basic('Node:p:\u00e4ss'),
    `Bearer ${Buffer.from('node:p:\u00e4ss').toString('base64')}`,
    `${basic('node:p:\u00e4ss')}, Basic x`,
  ]) {
    assert.equal(gate(header), false, header)
  }
})

test('a user without a password has the empty one', () => {
  assert.ok(basicGate({ username: 'node' })(basic('node:')))
  assert.equal(basicGate({ username: 'node' })(basic('node:x')), false)
})

test('a gate opens for its own pair and for no other', () => {
  const names = fc.string().filter(name => !name.includes(':'))
  fc.assert(
    fc.property(names, fc.string(), names, fc.string(), (username, password, other, guess) => {
      const gate = basicGate({ username, password })
      assert.ok(gate(basic(`${username}:${password}`)))
      assert.equal(gate(basic(`${other}:${guess}`)), username === other && password === guess)
    }),
  )
})
