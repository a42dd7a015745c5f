import assert from 'node:assert/strict'
import fs from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { Registry } from 'prom-client'
import { createBlobMetrics } from '../../src/blobs/metrics.ts'
import { createHttpMetrics } from '../../src/http/metrics.ts'
import { createProxyMetrics, type ProxyOutcome } from '../../src/http/proxy/metrics.ts'
import type { Target } from '../../src/http/target.ts'
import { createMetrics } from '../../src/observability/index.ts'
import { storeMetrics } from '../../src/store/metrics.ts'
import {
  createUpstreamMetrics,
  type OriginKind,
  type RequestOutcome,
  type RetryCause,
  type TokenOutcome,
} from '../../src/upstream/metrics.ts'
import {
  createMirrorMetrics,
  type MirrorFailureKind,
  type MirrorKind,
  type MirrorRequestOutcome,
  type MirrorStatus,
  type PingOutcome,
} from '../../src/upstream/mirrors/index.ts'
import { repositoryFile } from '../core/repository.ts'

/** Declares the metrics of one room, as the daemon does. */
type Declare = (registry: Registry) => unknown

const ROOMS: Readonly<Record<string, Declare>> = {
  store: registry => storeMetrics(registry, () => ({ bytes: 0, blobs: 0, maxBytes: 0, writable: true })),
  upstream: createUpstreamMetrics,
  'upstream/mirrors': createMirrorMetrics,
  blobs: createBlobMetrics,
  http: registry => createHttpMetrics(registry, () => 0),
  'http/proxy': registry => createProxyMetrics(registry, () => 0),
}

/** The compiler keeps these equal to the unions; the page has to keep up with them. */
const LABEL_VALUES = {
  origin_kind: namesOf<OriginKind>({
    registry: true,
    mirror: true,
    'oci-layout': true,
    localfs: true,
    localdisk: true,
    http: true,
    s3: true,
    oss: true,
  }),
  'outcome of requests': namesOf<RequestOutcome>({
    success: true,
    redirect: true,
    absent: true,
    refused: true,
    throttled: true,
    'client-error': true,
    'server-error': true,
    timeout: true,
    transport: true,
    aborted: true,
    failed: true,
  }),
  cause: namesOf<RetryCause>({ status: true, throttled: true, timeout: true, transport: true, body: true }),
  'outcome of token requests': namesOf<TokenOutcome>({ success: true, refused: true, failed: true, aborted: true }),
  'kind of mirrors': namesOf<MirrorKind>({ mirror: true, proxy: true }),
  state: namesOf<MirrorStatus>({ healthy: true, suspect: true, down: true, paused: true }),
  'outcome of mirror requests': namesOf<MirrorRequestOutcome>({
    success: true,
    absent: true,
    refused: true,
    failed: true,
    aborted: true,
  }),
  'kind of failures': namesOf<MirrorFailureKind>({
    timeout: true,
    transport: true,
    status: true,
    body: true,
    ping: true,
  }),
  'outcome of pings': namesOf<PingOutcome>({ answered: true, timeout: true, failed: true }),
  'outcome of proxy requests': namesOf<ProxyOutcome>({
    cached: true,
    forwarded: true,
    tunnelled: true,
    intercepted: true,
    denied: true,
    refused: true,
    unauthorised: true,
    malformed: true,
    loop: true,
    busy: true,
    failed: true,
    untrusted: true,
  }),
  route: namesOf<Target['kind']>({
    base: true,
    blob: true,
    manifest: true,
    tags: true,
    referrers: true,
    upload: true,
    unknown: true,
  }),
}

interface Described {
  readonly name: string
  readonly type: string
  readonly labels: readonly string[]
}

test('the page names exactly the metrics of each room, with their types and labels', async () => {
  const sections = sectionsOf(await readPage())
  assert.deepEqual([...sections.keys()].sort(), ['observability', ...Object.keys(ROOMS)].sort())
  for (const [room, declare] of Object.entries(ROOMS)) {
    const registry = new Registry()
    declare(registry)
    assert.deepEqual(rowsOf(sections.get(room) ?? ''), declaredIn(registry), room)
  }
  assert.deepEqual(rowsOf(sections.get('observability') ?? ''), declaredIn(createMetrics()))
})

test('every room that declares metrics is asked for them', async () => {
  const files = await fs.readdir(repositoryFile('src'), { recursive: true })
  const declaring = files.filter(file => path.basename(file) === 'metrics.ts').map(file => path.dirname(file))
  assert.deepEqual(declaring.sort(), ['observability', ...Object.keys(ROOMS)].sort())
})

test('the page lists the values of the closed labels', async () => {
  const page = await readPage()
  for (const [label, values] of Object.entries(LABEL_VALUES)) {
    const [name = '', ...words] = label.split(' ')
    const line = page.split('\n').find(text => text.startsWith([`- \`${name}\``, ...words].join(' ') + ':'))
    assert.ok(line !== undefined, label)
    const listed = quotedIn(line.slice(line.indexOf(':')).replaceAll(/\([^)]*\)/g, ''))
    assert.deepEqual(listed.sort(), values, label)
  }
})

test('the page names nothing with our prefix that is no metric', async () => {
  const registry = createMetrics()
  for (const declare of Object.values(ROOMS)) declare(registry)
  const known = new Set(declaredIn(registry).map(({ name }) => name))
  for (const [name] of (await readPage()).matchAll(/\bshoal_[a-z_]+/g)) assert.ok(known.has(name), name)
})

function readPage(): Promise<string> {
  return fs.readFile(repositoryFile('docs/metrics.md'), 'utf8')
}

function namesOf<T extends string>(all: Readonly<Record<T, true>>): string[] {
  return Object.keys(all).sort()
}

function sectionsOf(page: string): Map<string, string> {
  const parts = page.split(/^## (.+)$/m).slice(1)
  const sections = new Map<string, string>()
  for (let index = 0; index < parts.length; index += 2) sections.set(parts[index] ?? '', parts[index + 1] ?? '')
  return sections
}

function rowsOf(section: string): Described[] {
  const rows: Described[] = []
  for (const line of section.split('\n')) {
    const [, name, type, labels] = line.split('|').map(cell => cell.trim())
    const [metric] = quotedIn(name ?? '')
    if (metric?.startsWith('shoal_') === true)
      rows.push({ name: metric, type: type ?? '', labels: quotedIn(labels ?? '') })
  }
  return rows.sort(byName)
}

function declaredIn(registry: Registry): Described[] {
  // prom-client declares neither field in its types.
  const metrics = registry.getMetricsAsArray() as unknown as { name: string; type: string; labelNames: string[] }[]
  return metrics
    .filter(({ name }) => name.startsWith('shoal_'))
    .map(({ name, type, labelNames }) => ({ name, type, labels: labelNames }))
    .sort(byName)
}

function byName(a: Described, b: Described): number {
  return a.name < b.name ? -1 : 1
}

function quotedIn(text: string): string[] {
  return [...text.matchAll(/`([^`]+)`/g)].map(match => match[1] ?? '')
}
