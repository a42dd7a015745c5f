import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatTable } from '../../src/cli/table.ts'

test('columns are as wide as their widest cell, numbers to the right, and lines end without blanks', () => {
  const table = formatTable(
    [{ title: 'digest' }, { title: 'bytes', align: 'right' }, { title: 'state' }],
    [
      ['sha256:aa', '5', 'complete'],
      ['sha256:bbbb', '1048576', ''],
    ],
  )
  assert.equal(
    table,
    ['digest         bytes  state', 'sha256:aa          5  complete', 'sha256:bbbb  1048576', ''].join('\n'),
  )
})

test('a table without rows is its titles, and missing cells are blank', () => {
  assert.equal(formatTable([{ title: 'a' }, { title: 'b' }], []), 'a  b\n')
  assert.equal(formatTable([{ title: 'a' }, { title: 'b' }], [['1']]), 'a  b\n1\n')
})

test('every cell starts in the column of its title', () => {
  const cell = fc.stringMatching(/^[a-z0-9]{1,12}$/)
  fc.assert(
    fc.property(fc.array(fc.tuple(cell, cell, cell), { minLength: 1 }), rows => {
      const [header = '', ...lines] = formatTable([{ title: 'A' }, { title: 'B' }, { title: 'C' }], rows)
        .trimEnd()
        .split('\n')
      for (const [index, line] of lines.entries()) {
        assert.equal(line.slice(header.indexOf('B')).split(' ')[0], rows[index]![1])
        assert.equal(line.slice(header.indexOf('C')), rows[index]![2])
      }
    }),
  )
})
