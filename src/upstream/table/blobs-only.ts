import type { BlobSource, Origin } from '../../core/index.ts'
import { errorAnswer } from '../local/layout-listing.ts'

/** A source of blobs as an origin: it has neither manifests nor tags nor referrers, and says so as a registry would. */
export function blobsOnly(source: BlobSource): Origin {
  const begin = source.begin?.bind(source)
  const readsWhole = source.readsWhole?.bind(source)
  return {
    name: source.name,
    stat: (key, options) => source.stat(key, options),
    open: (key, range, options) => source.open(key, range, options),
    ...(begin === undefined ? {} : { begin }),
    ...(readsWhole === undefined ? {} : { readsWhole }),
    statManifest: () => Promise.resolve(undefined),
    getManifest: () => Promise.resolve(undefined),
    list: ({ registry }) =>
      Promise.resolve(errorAnswer(404, 'NAME_UNKNOWN', `${registry} has blobs only, no manifests and no listings`)),
  }
}
