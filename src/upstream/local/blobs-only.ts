import type { ListingAnswer, ListingRequest } from '../../core/index.ts'
import { errorAnswer } from './layout-listing.ts'

/** What an origin that has blobs, but neither manifests nor tags nor referrers, answers to a request for a listing. */
export function blobsOnly({ registry }: ListingRequest): ListingAnswer {
  return errorAnswer(404, 'NAME_UNKNOWN', `${registry} has blobs only, no manifests and no listings`)
}
