import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import fs from 'node:fs/promises'
import os from 'node:os'
import { test, type TestContext } from 'node:test'
import { request } from 'undici'
import { blobUrl, fetchBlob, type BlobAddress } from '../support/client.ts'
import { bytesOf, digestOf, generatedBlob } from '../support/generated-blob.ts'
import { Nginx } from '../support/nginx.ts'
import { metricOf, mirrorsOf, type MirrorLine } from '../support/shoal-command.ts'
import { startScriptedOrigin, type ScriptedOrigin } from '../support/scripted-origin.ts'
import { startShoal, type ShoalProcess } from '../support/shoal.ts'
import { skipWithout } from '../support/tools.ts'
import { until } from '../support/until.ts'

const KIB = 1024
const MIB = 1024 * KIB
const GIB = 1024 * MIB
const REGISTRY = 'origin.test'
const LARGE = generatedBlob(2 * GIB, 3)
/** For small reads, each of bytes that nobody has read before. No content has this digest; the blob is never complete, so nobody finds out. */
const MANY = generatedBlob(64 * GIB, 4)
const MANY_DIGEST = `sha256:${'0'.repeat(64)}`
const READ_BYTES = 64 * KIB
const READ_STRIDE = 8 * MIB
const READ_EVERY_MS = 100
/** So that the pull takes some ten seconds, with as many connections as Shoal finds worthwhile. */
const BYTES_PER_SECOND = 36e6
/** More than Shoal reads ahead of a reader. */
const STEP_BYTES = 128 * MIB
/** What a host that hangs may cost a reader, once: a second until it is doubted, another one for its answer to that, and some for a busy machine. */
const LONGEST_WAIT_MS = 3_000
/** Waiting, rather than being served while the machine is busy. */
const NOTICEABLE_MS = 1_000
/** Most requests that one blob's fill has under way. */
const MAX_CONNECTIONS = 8
const TIMEOUT_MS = 85_000

/** Room for the blob, what the cache leaves free by default, and a little more. */
async function skipWithoutRoom(): Promise<string | false> {
  const { bavail, bsize } = await fs.statfs(os.tmpdir())
  return bavail * bsize < 5 * GIB ? `needs 5 GiB in ${os.tmpdir()}` : false
}

const skip = (await skipWithout(['nginx'])) || (await skipWithoutRoom())

interface Wait {
  /** Milliseconds since 1970. */
  readonly began: number
  readonly ms: number
}

interface Period {
  readonly start: number
  readonly end: number
}

/** One GET of a whole blob, whose reader goes no further than it may, so that the pull does not end before what is to happen in it has. */
class Pull {
  received = 0
  #allowed = 0
  #goOn: () => void = () => undefined
  readonly #waits: Wait[] = []
  readonly #hash = createHash('sha256')
  readonly #done: Promise<void>

  constructor(address: BlobAddress) {
    this.#done = this.#read(address)
    // Heard of by whoever asks for the digest.
    this.#done.catch(() => undefined)
  }

  /** The longest waits for the next piece, the head of the answer included, in milliseconds: of those that began from `start` to `end`. */
  waits({ start, end }: Period): readonly number[] {
    const own = this.#waits.filter(({ began }) => began >= start && began < end)
    return own.map(({ ms }) => Math.round(ms)).sort((a, b) => b - a)
  }

  async digest(): Promise<string> {
    this.allow(Infinity)
    await this.#done
    return `sha256:${this.#hash.digest('hex')}`
  }

  /** So many more bytes may be read from now on. */
  allow(bytes: number): void {
    this.#allowed = this.received + bytes
    this.#goOn()
  }

  /** Resolves when so many more bytes have been read. */
  async get(bytes: number): Promise<void> {
    const end = this.received + bytes
    this.allow(bytes)
    await Promise.race([until(() => this.received >= end, 60_000), this.#done])
    assert.ok(this.received >= end, `the pull ended after ${this.received} bytes`)
  }

  async #read(address: BlobAddress): Promise<void> {
    let began = Date.now()
    let since = performance.now()
    const answer = await request(blobUrl(address))
    assert.equal(answer.statusCode, 200)
    for await (const piece of answer.body as AsyncIterable<Buffer>) {
      this.#waits.push({ began, ms: performance.now() - since })
      this.#hash.update(piece)
      this.received += piece.length
      while (this.received >= this.#allowed) await new Promise<void>(resolve => (this.#goOn = resolve))
      began = Date.now()
      since = performance.now()
    }
  }
}

/** Begins one cold read of a few blocks after the other, without waiting for the one before. */
class SmallReads implements AsyncDisposable {
  readonly finished: Wait[] = []
  readonly #address: BlobAddress
  readonly #reads: Promise<void>[] = []
  readonly #timer: NodeJS.Timeout

  constructor(address: BlobAddress) {
    this.#address = address
    this.#timer = setInterval(() => this.#begin(), READ_EVERY_MS)
  }

  get begun(): number {
    return this.#reads.length
  }

  get underWay(): number {
    return this.#reads.length - this.finished.length
  }

  /** Waits for those that have begun. Throws what any of them failed with. */
  async end(): Promise<void> {
    clearInterval(this.#timer)
    await Promise.all(this.#reads)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    await Promise.allSettled(this.#reads)
  }

  #begin(): void {
    const read = this.#read(this.#reads.length * READ_STRIDE)
    // Heard of by whoever ends them.
    read.catch(() => undefined)
    this.#reads.push(read)
  }

  async #read(start: number): Promise<void> {
    const began = Date.now()
    const since = performance.now()
    const { status, body } = await fetchBlob(this.#address, `${start}-${start + READ_BYTES - 1}`)
    assert.equal(status, 206)
    assert.ok(body.equals(bytesOf(MANY, start, start + READ_BYTES)))
    this.finished.push({ began, ms: performance.now() - since })
  }
}

/** One pull of 2 GiB and many small reads through a Shoal whose registry has one mirror, an nginx. */
class Scene {
  readonly digest: string
  readonly nginx: Nginx
  readonly shoal: ShoalProcess
  readonly pull: Pull
  readonly reads: SmallReads
  /** What is behind nginx. */
  readonly #behind: ScriptedOrigin
  readonly #registry: ScriptedOrigin
  readonly #t: TestContext

  constructor(
    t: TestContext,
    parts: { nginx: Nginx; shoal: ShoalProcess; behind: ScriptedOrigin; registry: ScriptedOrigin; digest: string },
  ) {
    this.#t = t
    this.digest = parts.digest
    this.nginx = parts.nginx
    this.shoal = parts.shoal
    this.#behind = parts.behind
    this.#registry = parts.registry
    const { mirror } = parts.shoal
    this.pull = new Pull({ mirror, digest: parts.digest })
    this.reads = new SmallReads({ mirror, digest: MANY_DIGEST })
  }

  /** What the mirror has sent of the large blob. */
  get fromMirror(): number {
    return this.#behind.bytesSent.get(this.digest) ?? 0
  }

  get fromRegistry(): number {
    return this.#registry.bytesSent.get(this.digest) ?? 0
  }

  /** Requests that the mirror is answering. */
  get underWayAtMirror(): number {
    return this.#behind.running
  }

  /** The mirror as `shoal mirrors` tells it. */
  async mirror(): Promise<MirrorLine> {
    const [line] = await mirrorsOf(this.shoal, REGISTRY)
    assert.ok(line !== undefined)
    this.#t.diagnostic(`at ${(this.pull.received / MIB).toFixed(0)} MiB: ${JSON.stringify(line)}`)
    return line
  }

  /** Waits until the daemon has said so for the nth time since it started. */
  async logged(message: string, status?: string, nth = 1): Promise<void> {
    let seen = 0
    await this.shoal.waitForRecord(record => {
      if (record.msg === message && (status === undefined || record['status'] === status)) seen += 1
      return seen >= nth
    })
  }

  /** The pull is running, with some way to go, and the mirror answers it. */
  async getsOn(): Promise<void> {
    const { received } = this.pull
    const sent = this.fromMirror
    this.pull.allow(STEP_BYTES)
    await until(() => this.pull.received > received && this.fromMirror > sent && this.underWayAtMirror > 0)
  }

  async usedAgain(nth: number): Promise<void> {
    await this.logged('mirror answers, used again', undefined, nth)
    const before = this.fromMirror
    await this.pull.get(STEP_BYTES)
    assert.ok(this.fromMirror > before + STEP_BYTES / 4, `${this.fromMirror - before} bytes`)
  }

  /** While the pull gets on and small reads begin and end, the mirror is asked for nothing. The argument says what it was before. */
  async leavesMirrorAlone({ requests, status }: MirrorLine): Promise<void> {
    assert.notEqual(status, 'healthy')
    const [sent, begun] = [this.fromRegistry, this.reads.begun]
    await this.pull.get(STEP_BYTES)
    await until(() => this.reads.begun > begun + 5)
    assert.ok(this.fromRegistry > sent + STEP_BYTES / 4, `${this.fromRegistry - sent} bytes`)
    const later = await this.mirror()
    assert.notEqual(later.status, 'healthy')
    assert.equal(later.requests, requests)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.reads[Symbol.asyncDispose]()
  }
}

/** Every process and server ends with `work`. */
async function withScene(t: TestContext, digest: string, work: (scene: Scene) => Promise<void>): Promise<void> {
  const fault = () => ({ bytesPerSecond: BYTES_PER_SECOND })
  await using behind = await startScriptedOrigin({ record: false, fault })
  await using registry = await startScriptedOrigin({ record: false, fault })
  for (const server of [behind, registry]) {
    server.add(LARGE, digest)
    server.add(MANY, MANY_DIGEST)
  }
  await using nginx = await Nginx.start({
    server: `
    location / {
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_pass ${behind.url};
    }`,
  })
  await using shoal = await startShoal({
    config: {
      mirror: { default_registry: REGISTRY, listen: ['127.0.0.1:0'] },
      registries: {
        [REGISTRY]: { host: registry.url, mirrors: [{ host: nginx.url, health_check_interval: '300ms' }] },
      },
      store: { max_bytes: '3GiB' },
    },
  })
  await using scene = new Scene(t, { nginx, shoal, behind, registry, digest })
  await work(scene)
}

test(
  'in one pull of 2 GiB nginx is stopped, killed, and made to hang: nobody waits for it twice, and each time it is used again',
  {
    skip,
    timeout: TIMEOUT_MS,
  },
  async t => {
    await withScene(t, digestOf(LARGE), async scene => {
      const { nginx, pull, reads, shoal } = scene
      const failovers = (): Promise<number> => metricOf(shoal, 'shoal_mirror_failovers_total')
      const began = Date.now()
      await pull.get(STEP_BYTES)
      assert.equal(scene.fromRegistry, 0, 'a healthy mirror answers everything')
      const healthy = await scene.mirror()
      assert.deepEqual([healthy.status, healthy.failures], ['healthy', 0])

      for (const [index, signal] of (['SIGTERM', 'SIGKILL'] as const).entries()) {
        const before = await failovers()
        await scene.getsOn()
        const most = scene.underWayAtMirror + reads.underWay + MAX_CONNECTIONS
        await nginx.stop(signal)
        await scene.logged('mirror not used', 'down', index + 1)
        const down = await scene.mirror()
        assert.deepEqual([down.status, down.failures], ['down', 5])
        await scene.leavesMirrorAlone(down)
        const failed = (await failovers()) - before
        t.diagnostic(`${signal}: ${failed} failovers, at most ${most} requests were in flight`)
        assert.ok(failed >= 1 && failed <= most)
        await nginx.restart()
        await scene.usedAgain(index + 1)
        assert.equal((await scene.mirror()).failures, 0)
      }

      const before = await failovers()
      await scene.getsOn()
      const hung = Date.now()
      nginx.hang()
      await scene.logged('mirror not used', 'suspect', 3)
      const detected = Date.now()
      const suspect = await scene.mirror()
      assert.equal(suspect.status, 'suspect')
      await scene.leavesMirrorAlone(suspect)
      const failed = (await failovers()) - before
      const resumed = Date.now()
      nginx.resume()
      await scene.usedAgain(3)
      assert.equal((await scene.mirror()).status, 'healthy')

      assert.equal(await pull.digest(), scene.digest)
      await reads.end()

      const whileStopped = pull.waits({ start: began, end: hung - NOTICEABLE_MS })
      const whileHung = pull.waits({ start: hung - NOTICEABLE_MS, end: Infinity })
      t.diagnostic(
        `longest waits of the pull: ${whileStopped.slice(0, 3).join(', ')} ms, and then ${whileHung.slice(0, 3).join(', ')} ms`,
      )
      assert.ok((whileStopped[0] ?? Infinity) < NOTICEABLE_MS, 'a mirror that is gone costs nothing')
      assert.ok((whileHung[0] ?? Infinity) < LONGEST_WAIT_MS)
      assert.ok((whileHung[1] ?? Infinity) < NOTICEABLE_MS, 'one that hangs is waited for once')

      const slow = reads.finished.filter(({ ms }) => ms >= NOTICEABLE_MS)
      const slowest = Math.max(...reads.finished.map(({ ms }) => ms))
      t.diagnostic(`hung for ${resumed - hung} ms, noticed after ${detected - hung} ms, ${failed} failovers`)
      t.diagnostic(
        `${slow.length} of ${reads.finished.length} small reads waited, the longest for ${slowest.toFixed(0)} ms`,
      )
      assert.ok(slowest < LONGEST_WAIT_MS)
      assert.ok(
        slow.every(read => read.began > hung - NOTICEABLE_MS && read.began <= detected),
        'whoever came later, or while nginx was gone, did not wait',
      )
      const meanwhile = reads.finished.filter(read => read.began <= detected && read.began + read.ms >= hung).length
      assert.ok(failed >= 1 && failed <= MAX_CONNECTIONS + meanwhile, `${failed} failovers, ${meanwhile} small reads`)

      const left = (await nginx.requests()).filter(
        ({ endedAt, path, status }) => endedAt >= resumed && status === 499 && path.includes('/blobs/'),
      )
      assert.ok(left.length <= failed, 'what nginx found when it went on is what had been given up')
    })
  },
)
