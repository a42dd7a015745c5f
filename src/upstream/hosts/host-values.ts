import { validateHeaderName, validateHeaderValue } from 'node:http'
import path from 'node:path'
import type { Capability, ClientCertificate } from '../options.ts'
import { parseGoDuration } from './go-duration.ts'

/**
 * The values of hosts.toml, each from whatever TOML has for it. Undefined: the value is none of its kind. Nothing here is trusted to be
 * what containerd's documentation (docs/hosts.md) asks for.
 */

/** Of all that containerd knows, `push` and `referrers` mean nothing to us. None at all means all, as in containerd. */
export function capabilitiesFrom(value: unknown): Capability[] | undefined {
  const words = stringsFrom(value)?.map(word => word.toLowerCase())
  if (words?.every(word => ['pull', 'resolve', 'push', 'referrers'].includes(word)) !== true) return undefined
  return words.length === 0 ? ['pull', 'resolve'] : (['pull', 'resolve'] as const).filter(word => words.includes(word))
}

/** One file or a list of them, relative to `directory`. */
export function filesFrom(value: unknown, directory: string): string[] | undefined {
  const files = typeof value === 'string' ? [value] : stringsFrom(value)
  return files?.map(file => path.resolve(directory, file))
}

/** A file with both, a list of such files, or a list of which some are pairs of certificate and key; an empty key is in the first file. */
export function clientsFrom(value: unknown, directory: string): ClientCertificate[] | undefined {
  const items: unknown[] = Array.isArray(value) ? value : [value]
  const clients: ClientCertificate[] = []
  for (const item of items) {
    const [cert, key = '', ...more] = (typeof item === 'string' ? [item] : stringsFrom(item)) ?? []
    if (cert === undefined || more.length > 0) return undefined
    const resolved = path.resolve(directory, cert)
    clients.push(key === '' ? { cert: resolved } : { cert: resolved, key: path.resolve(directory, key) })
  }
  return clients
}

/** The values of one header. */
export function headerFrom(name: string, value: unknown): string[] | undefined {
  const values = typeof value === 'string' ? [value] : stringsFrom(value)
  try {
    validateHeaderName(name)
    for (const text of values ?? []) validateHeaderValue(name, text)
    return values
  } catch {
    return undefined
  }
}

export function booleanFrom(value: unknown): boolean | undefined {
  return typeof value === 'boolean' ? value : undefined
}

/** Milliseconds in a Go duration; an empty one is none: 0. */
export function durationFrom(value: unknown): number | undefined {
  if (typeof value !== 'string') return undefined
  return value === '' ? 0 : parseGoDuration(value)
}

/** Milliseconds in a number of seconds, which is what nydus-snapshotter reads, or in a duration. */
export function secondsFrom(value: unknown): number | undefined {
  return typeof value === 'number' ? countFrom(value * 1000) : durationFrom(value)
}

export function countFrom(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && Number(value) >= 0 ? Number(value) : undefined
}

/**
 * `http[s]://host[:port][/path]` without a slash at its end; https where nothing is said. Undefined also with a user, a query or a
 * fragment: those may hold secrets, and have no meaning here.
 */
export function hostUrlFrom(value: unknown): string | undefined {
  const url = urlFrom(value)
  if (url === undefined || url.search !== '' || url.hash !== '') return undefined
  return `${url.origin}${path.posix.normalize(url.pathname).replace(/\/+$/, '')}`
}

/** As hostUrlFrom(), but any URL over HTTP without a user. An empty one is ''. */
export function pingUrlFrom(value: unknown): string | undefined {
  return value === '' ? '' : urlFrom(value)?.href
}

function urlFrom(value: unknown): URL | undefined {
  if (typeof value !== 'string' || value === '') return undefined
  const text = /^[a-z][a-z0-9+.-]*:\/\//i.test(value) ? value : `https://${value}`
  if (!URL.canParse(text)) return undefined
  const url = new URL(text)
  const plain = url.username === '' && url.password === ''
  return plain && (url.protocol === 'http:' || url.protocol === 'https:') ? url : undefined
}

function stringsFrom(value: unknown): string[] | undefined {
  if (!Array.isArray(value)) return undefined
  const items: unknown[] = value
  return items.every(item => typeof item === 'string') ? items : undefined
}
