import type { ListingAnswer } from '../../core/index.ts'

/** A descriptor as a referrers answer lists it (OCI distribution-spec 1.1, "Listing Referrers"). */
export interface Referrer {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
  readonly artifactType?: string
  readonly annotations?: unknown
}

/** `tags/list`, sorted, with `n` and `last`. */
export function listTags(repository: string, tags: Iterable<string>, query: string): ListingAnswer {
  const params = new URLSearchParams(query)
  const limit = params.get('n')
  if (limit !== null && !/^\d{1,9}$/.test(limit)) {
    return errorAnswer(400, 'PAGINATION_NUMBER_INVALID', 'n is not a number')
  }
  const last = params.get('last') ?? ''
  const rest = [...tags].filter(tag => tag > last).sort()
  const page = limit === null ? rest : rest.slice(0, Number(limit))
  const end = page.at(-1)
  const more = end !== undefined && page.length < rest.length
  const link = more ? nextPage(repository, page.length, end) : {}
  return jsonAnswer(200, { name: repository, tags: page }, { 'content-type': 'application/json', ...link })
}

export function listReferrers(referrers: readonly Referrer[], query: string): ListingAnswer {
  const wanted = new URLSearchParams(query).get('artifactType')
  const manifests = wanted === null ? referrers : referrers.filter(({ artifactType }) => artifactType === wanted)
  const mediaType = 'application/vnd.oci.image.index.v1+json'
  return jsonAnswer(
    200,
    { schemaVersion: 2, mediaType, manifests },
    { 'content-type': mediaType, ...(wanted === null ? {} : { 'oci-filters-applied': 'artifactType' }) },
  )
}

/** An error in the registry's format. */
export function errorAnswer(status: number, code: string, message: string): ListingAnswer {
  return jsonAnswer(status, { errors: [{ code, message }] }, { 'content-type': 'application/json' })
}

function nextPage(repository: string, limit: number, last: string): { link: string } {
  const query = new URLSearchParams({ n: String(limit), last }).toString()
  return { link: `</v2/${repository}/tags/list?${query}>; rel="next"` }
}

function jsonAnswer(status: number, value: object, headers: Readonly<Record<string, string>>): ListingAnswer {
  return { status, headers, body: Buffer.from(JSON.stringify(value)) }
}
