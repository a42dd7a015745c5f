import assert from 'node:assert/strict'
import { test } from 'node:test'
import { planMultipart } from '../../src/http/multipart.ts'

test('the length promised is the length of what is sent', () => {
  const content = Buffer.from('0123456789')
  const ranges = [
    { start: 0, end: 2 },
    { start: 5, end: 10 },
  ]
  const plan = planMultipart(ranges, content.length, 'text/plain', 'edge')
  const body = Buffer.concat([
    ...plan.parts.flatMap(part => [part.head, content.subarray(part.range.start, part.range.end)]),
    plan.tail,
  ])
  assert.equal(body.length, plan.contentLength)
  assert.equal(
    body.toString(),
    [
      '--edge\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01',
      '\r\n--edge\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-9/10\r\n\r\n56789',
      '\r\n--edge--\r\n',
    ].join(''),
  )
})
