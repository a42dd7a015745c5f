import type { MirrorConfig, RegistryConfig, UpstreamProxyConfig } from './config.ts'
import { present, toHeaders, toMs, toTls, withoutSlash } from './resolve-parts.ts'
import type { RawMirror, RawProxy, RawRegistry } from './schema-registries.ts'

export function toRegistry(raw: RawRegistry, password: string | undefined): RegistryConfig {
  return {
    host: withoutSlash(raw.host ?? ''),
    ...present('username', raw.username),
    ...present('password', password),
    tls: toTls(raw.tls),
    visibility: raw.visibility,
    mirrors: raw.mirrors.map(toMirror),
    ...(raw.proxy.url === '' ? {} : { proxy: toProxy(raw.proxy) }),
  }
}

function toMirror(raw: RawMirror): MirrorConfig {
  return {
    host: withoutSlash(raw.host),
    overridePath: raw.override_path,
    headers: toHeaders(raw.headers),
    capabilities: raw.capabilities,
    ...present('pingUrl', raw.ping_url),
    healthCheckIntervalMs: toMs(raw.health_check_interval),
    failureLimit: raw.failure_limit,
    healthCheckPauseElapsedMs: toMs(raw.health_check_pause_elapsed),
    authThrough: raw.auth_through,
    tls: toTls(raw.tls),
  }
}

function toProxy(raw: RawProxy): UpstreamProxyConfig {
  return {
    url: raw.url,
    ...present('pingUrl', raw.ping_url),
    fallback: raw.fallback,
    checkIntervalMs: toMs(raw.check_interval),
    checkPauseElapsedMs: toMs(raw.check_pause_elapsed),
    useHttp: raw.use_http,
  }
}
