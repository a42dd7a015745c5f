import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { locateKeys, splitAssignment } from '../../src/core/index.ts'
import {
  formatPath,
  mergeTrees,
  newTree,
  parsePath,
  parseTomlValue,
  replaceAt,
  treeOf,
  valueAt,
  withoutPath,
} from '../../src/core/index.ts'

const key = fc.oneof(
  fc.constantFrom('a', 'b', 'r.example', '__proto__', 'x y', '"', "'", '='),
  fc.string({ unit: 'binary' }),
)
const path = fc.array(key, { minLength: 1, maxLength: 4 })

test('a dotted key that is written and read again is the same', () => {
  fc.assert(fc.property(path, segments => assert.deepEqual(parsePath(formatPath(segments)), segments)))
})

test('what is no dotted key is none', () => {
  for (const text of ['', 'a b', 'a..b', '.a', 'a.', '"a', 'a\nb = 1\nc', 'a = 1 #'])
    assert.equal(parsePath(text), undefined, text)
})

test('what is put at a path is found there, and only there, until it is taken out', () => {
  fc.assert(
    fc.property(path, path, (one, other) => {
      const tree = mergeTrees(treeOf(one, 1), treeOf(other, 2))
      assert.equal(valueAt(tree, other), 2)
      assert.equal(valueAt(withoutPath(tree, other), other), undefined)
      const overlaps = one.slice(0, other.length).join('\n') === other.slice(0, one.length).join('\n')
      if (!overlaps) assert.equal(valueAt(withoutPath(tree, other), one), 1)
    }),
  )
})

test('tables are merged, lists and everything else replaced', () => {
  const under = newTree([
    [
      'table',
      newTree([
        ['kept', 1],
        ['changed', 1],
      ]),
    ],
    ['list', [1, 2]],
    ['scalar', 1],
  ])
  const over = newTree([
    ['table', newTree([['changed', 2]])],
    ['list', [3]],
    ['scalar', newTree([['now', 'a table']])],
  ])
  assert.deepEqual(JSON.parse(JSON.stringify(mergeTrees(under, over))), {
    table: { kept: 1, changed: 2 },
    list: [3],
    scalar: { now: 'a table' },
  })
  assert.deepEqual(valueAt(under, ['table', 'changed']), 1)
})

test('a single TOML value is read, and nothing is smuggled in behind it', () => {
  assert.equal(parseTomlValue('5'), 5)
  assert.deepEqual(parseTomlValue('["a"]'), ['a'])
  assert.equal(parseTomlValue('a'), undefined)
  assert.equal(parseTomlValue('1\nother = 2'), undefined)
})

test('an assignment is split at the first equals sign outside quotes', () => {
  assert.deepEqual(splitAssignment('a.b = c=d'), ['a.b', ' c=d'])
  assert.deepEqual(splitAssignment('registries."a=b".host=x'), ['registries."a=b".host', 'x'])
  assert.deepEqual(splitAssignment("'a=b'=x"), ["'a=b'", 'x'])
  assert.deepEqual(splitAssignment('a='), ['a', ''])
  for (const text of ['a', '', '=a', '"a=b']) assert.equal(splitAssignment(text), undefined, text)
})

const TOML = `
# comment [not.a.section]
top = 1
[store]
  max_bytes = "1GiB" # = x
[registries."r.example"] # trailing
host = "http://[::1]:5000"
tls = { ca = "x" }
tls2.a = 1
`

test('keys are found at their line, and those inside an inline table at the line of the table', () => {
  const lineOf = locateKeys(TOML)
  assert.equal(lineOf(['top']), 3)
  assert.equal(lineOf(['store']), 4)
  assert.equal(lineOf(['store', 'max_bytes']), 5)
  assert.equal(lineOf(['registries', 'r.example', 'host']), 7)
  assert.equal(lineOf(['registries', 'r.example', 'tls', 'ca']), 8)
  assert.equal(lineOf(['registries', 'r.example', 'tls2', 'a']), 9)
  assert.equal(lineOf(['registries', 'r.example', 'username']), 6)
  assert.equal(lineOf(['nowhere']), undefined)
})

test('keys in lists of tables are found in the table that they stand in', () => {
  const lineOf = locateKeys(`[[rules]]
match = "a"
[[rules]]
match = "b"
[rules.more]
x = 1
[[rules.parts]]
y = 1
[[rules.parts]]
y = 2
[[rules]]
[[rules.parts]]
y = 3
[[not a header]]
z = 1
[ "rules" ]]
list = [
  { x = 1 },
]
`)
  assert.equal(lineOf(['rules']), 1)
  assert.equal(lineOf(['rules', 0]), 1)
  assert.equal(lineOf(['rules', 0, 'match']), 2)
  assert.equal(lineOf(['rules', 0, 'unsaid']), 1)
  assert.equal(lineOf(['rules', 1]), 3)
  assert.equal(lineOf(['rules', 1, 'match']), 4)
  assert.equal(lineOf(['rules', 1, 'more', 'x']), 6)
  assert.equal(lineOf(['rules', 1, 'parts', 0, 'y']), 8)
  assert.equal(lineOf(['rules', 1, 'parts', 1, 'y']), 10)
  assert.equal(lineOf(['rules', 2, 'parts', 0, 'y']), 13)
  assert.equal(lineOf(['rules', 2, 'parts', 0, 'list', 0, 'x']), 17)
})

test('the index of a list is no key, and is written in brackets', () => {
  assert.equal(formatPath(['rules', 1, 'match']), 'rules[1].match')
  assert.equal(formatPath(['rules', '1', 'match']), 'rules.1.match')
  assert.equal(formatPath(['a.b', 0, 1]), '"a.b"[0][1]')
})

test('items of lists are found by their index, replaced in place, and left out only with their list', () => {
  const tree = newTree([
    ['list', [newTree([['a', 1]]), newTree([['a', 2]])]],
    ['other', newTree([['0', 'a key']])],
  ])
  assert.equal(valueAt(tree, ['list', 1, 'a']), 2)
  assert.equal(valueAt(tree, ['list', '1', 'a']), undefined)
  assert.equal(valueAt(tree, ['list', 2]), undefined)
  assert.equal(valueAt(tree, ['other', 0]), undefined)
  const replaced = replaceAt(replaceAt(tree, ['list', 1, 'a'], 3), ['other', '0'], 'changed')
  assert.deepEqual(JSON.parse(JSON.stringify(replaced)), { list: [{ a: 1 }, { a: 3 }], other: { '0': 'changed' } })
  assert.deepEqual(Object.keys(withoutPath(tree, ['list', 0, 'a'])), ['other'])
})
