import type { KeyPath } from '../core/index.ts'
import type { Problem } from './problem.ts'
import type { RawTls } from './schema-parts.ts'

/** What is wrong between the name and the password of the table at `path`. */
export function checkLogin(path: KeyPath, login: { username?: string; password_file?: string }): Problem[] {
  const { username = '' } = login
  const problems = checkPair(path, login, 'username', 'password_file')
  if (username.includes(':'))
    problems.push({ path: [...path, 'username'], message: 'must not contain ":" (RFC 7617, section 2)' })
  return problems
}

/** What is wrong between the keys of the `tls` table at `path`. */
export function checkTls(path: KeyPath, tls: RawTls): Problem[] {
  return checkPair(path, tls, 'cert', 'key', 'tls.')
}

/** Neither of two keys makes sense without the other. */
export function checkPair<K extends string>(
  path: KeyPath,
  table: Readonly<Partial<Record<K, unknown>>>,
  one: K,
  other: K,
  inside = '',
): Problem[] {
  const has = (key: K): boolean => table[key] !== undefined && table[key] !== ''
  if (has(one) === has(other)) return []
  const [given, absent] = has(one) ? [one, other] : [other, one]
  return [{ path: [...path, given], message: `needs ${inside}${absent} beside it` }]
}
