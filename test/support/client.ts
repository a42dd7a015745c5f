import { request } from 'undici'
import { bytesOf, type BlobContent } from './generated-blob.ts'

/** Where a blob is asked for. */
export interface BlobAddress {
  readonly mirror: string
  readonly digest: string
  readonly repository?: string
  /** The `ns` parameter. */
  readonly registry?: string
}

export function blobUrl({ mirror, digest, repository = 'library/test', registry }: BlobAddress): string {
  return `${mirror}/v2/${repository}/blobs/${digest}${registry === undefined ? '' : `?ns=${registry}`}`
}

export interface Fetched {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Buffer
}

/** One GET; `range` is inclusive as the header has it. */
export async function fetchBlob(
  address: BlobAddress,
  range?: string,
  headers: Record<string, string> = {},
): Promise<Fetched> {
  const answer = await request(blobUrl(address), {
    headers: { ...headers, ...(range === undefined ? {} : { range: `bytes=${range}` }) },
  })
  return { status: answer.statusCode, headers: answer.headers, body: Buffer.from(await answer.body.arrayBuffer()) }
}

/** Compares start ... end-1 with what they have to be, piece by piece. Returns the bytes compared: fewer when the connection was cut. */
export async function compareBlob(
  address: BlobAddress,
  content: BlobContent,
  start = 0,
  end = content.size,
): Promise<number> {
  const headers = start === 0 && end === content.size ? {} : { range: `bytes=${start}-${end - 1}` }
  const answer = await request(blobUrl(address), { headers })
  if (answer.statusCode !== 200 && answer.statusCode !== 206) {
    await answer.body.dump()
    throw new Error(`the mirror answered ${answer.statusCode}`)
  }
  let position = start
  for await (const piece of answer.body as AsyncIterable<Buffer>) {
    if (!piece.equals(bytesOf(content, position, position + piece.length)))
      throw new WrongBytesError(address.digest, position)
    position += piece.length
  }
  return position - start
}

/** The one failure that must never happen. */
export class WrongBytesError extends Error {
  constructor(digest: string, position: number) {
    super(`wrong bytes in ${digest} at or after ${position}`)
  }
}
