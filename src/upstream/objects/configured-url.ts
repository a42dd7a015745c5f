import type { ShoalError } from '../../core/index.ts'

/**
 * An http(s) URL of the configuration, which may have a path. Throws what `refuse` makes of the reason; that never holds the text, in which
 * somebody may have left a credential.
 */
export function configuredUrl(text: string, refuse: (why: string) => ShoalError): URL {
  if (!URL.canParse(text)) throw refuse('is not a URL such as https://objects.example')
  const url = new URL(text)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw refuse('must begin with https:// or http://')
  if (url.username !== '' || url.password !== '') throw refuse('must not hold a credential')
  if (url.search !== '' || url.hash !== '') throw refuse('must not have a query or a fragment')
  return url
}
