import type { HeadersConfig, TlsConfig } from './config.ts'
import type { RawTls } from './schema-parts.ts'
import { parseDuration } from './units.ts'

export function toMs(text: string): number {
  return parseDuration(text) ?? 0
}

export function withoutSlash(url: string): string {
  return url.replace(/\/+$/, '')
}

/** `{ key: value }`, or nothing at all where the value is '' or undefined. */
export function present<K extends string>(key: K, value: string | undefined): Partial<Record<K, string>> {
  return value === undefined || value === '' ? {} : ({ [key]: value } as Record<K, string>)
}

export function toHeaders(raw: HeadersConfig): HeadersConfig {
  return Object.fromEntries(Object.entries(raw))
}

/** Undefined: an origin of a type that has it, of which nothing is configured. */
export function toTls(raw: RawTls | undefined): TlsConfig {
  const { ca = [], cert = '', key = '', skip_verify: skipVerify = false, server_name: serverName = '' } = raw ?? {}
  return { ca, clients: cert === '' ? [] : [{ cert, key }], skipVerify, ...present('serverName', serverName) }
}
