import type { KeyPath } from '../core/index.ts'
import type { Problem } from './problem.ts'
import { checkLogin, checkPair, checkTls } from './relations-parts.ts'
import type { RawOrigin } from './schema-origins.ts'

/** What is wrong between the keys of an origin that each belong to its type. */
export function checkOrigin([name, origin]: [string, RawOrigin]): Problem[] {
  const path = ['origins', name]
  return [
    ...checkLocalfs(path, origin),
    ...checkLogin(path, origin),
    ...checkAccessKey(path, origin),
    ...(origin.tls === undefined ? [] : checkTls([...path, 'tls'], origin.tls)),
  ]
}

function checkLocalfs(
  path: KeyPath,
  { type, dir = '', blob_file: file = '', alt_dirs: more = [] }: RawOrigin,
): Problem[] {
  if (type !== 'localfs') return []
  if (dir === '' && file === '') return [{ path, message: 'needs dir or blob_file' }]
  if (dir !== '' && file !== '') return [{ path, message: 'must not have both dir and blob_file' }]
  if (file !== '' && more.length > 0) return [{ path: [...path, 'alt_dirs'], message: 'makes no sense with blob_file' }]
  return []
}

function checkAccessKey(path: KeyPath, origin: RawOrigin): Problem[] {
  const problems = checkPair(path, origin, 'access_key_id', 'secret_access_key_file')
  if ((origin.session_token_file ?? '') !== '' && (origin.access_key_id ?? '') === '')
    problems.push({ path: [...path, 'session_token_file'], message: 'needs access_key_id beside it' })
  return problems
}
