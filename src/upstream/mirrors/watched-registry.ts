import { errorCode } from '../../core/index.ts'
import type { UpstreamDeps } from '../options.ts'
import { Probe, type Ping } from './probe.ts'
import { WatchedOrigin, type ClosableOrigin } from './watched-origin.ts'

export interface WatchedRegistryDeps extends UpstreamDeps {
  /** Speaks to the registry. Owned: closed with what is returned. */
  readonly inner: ClosableOrigin
  /** On a connection that does not wait for those of `inner`, and by a way that they would take too. */
  readonly ping: Ping
}

/**
 * The last source, which is always asked, and kept nothing against: only what is under way while it hangs ends early. It hangs when nothing
 * at all comes of a ping. Any status is a sign of life; a connection that is refused is an answer as well, which its requests get and
 * repeat by themselves.
 */
export function watchedRegistry(deps: WatchedRegistryDeps, { host }: { readonly host: string }): WatchedOrigin {
  const { clock, inner, ping } = deps
  const log = deps.log.child({ origin: inner.name })
  // Its pings are requests to the registry, and counted with them: those that are counted as pings are of mirrors and proxies.
  const metrics = { ping: () => undefined }
  const probe = new Probe({ clock, metrics, ping }, { host, isAlive: () => true })
  return new WatchedOrigin(
    {
      clock,
      inner,
      ping: async options => {
        try {
          await probe.run(options)
        } catch (error: unknown) {
          options.signal.throwIfAborted()
          if (errorCode(error) === 'ERR_UPSTREAM_TIMEOUT') throw error
        }
      },
      onHung: () => log.warn({ host }, 'registry hangs, what is under way there ends'),
    },
    { host },
  )
}
