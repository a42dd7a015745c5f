/** Names that are always in the table; a configured registry of the same name takes the place. */
export const DEFAULT_REGISTRIES: Readonly<Record<string, string>> = {
  'docker.io': 'https://registry-1.docker.io',
  'gcr.io': 'https://gcr.io',
  'ghcr.io': 'https://ghcr.io',
  'mcr.microsoft.com': 'https://mcr.microsoft.com',
  'public.ecr.aws': 'https://public.ecr.aws',
  'quay.io': 'https://quay.io',
  'registry.k8s.io': 'https://registry.k8s.io',
}

/**
 * Where clients of the registries above are led for tokens and content, besides the registry itself: a host, or `.suffix` for those below it.
 * A forward proxy that let them reach the registry only would let nobody pull. Only suffixes below which nobody else's names are.
 */
const COMPANIONS: Readonly<Record<string, readonly string[]>> = {
  'docker.io': [
    'auth.docker.io',
    'production.cloudflare.docker.com',
    'docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com',
  ],
  'ghcr.io': ['pkg-containers.githubusercontent.com'],
  'mcr.microsoft.com': ['.data.mcr.microsoft.com'],
  'public.ecr.aws': ['.public.ecr.aws'],
  'quay.io': ['cdn.quay.io', 'cdn01.quay.io', 'cdn02.quay.io', 'cdn03.quay.io'],
}

/** The public registry whose clients are led to `hostname`. Undefined: none that is known. */
export function companionOf(hostname: string): string | undefined {
  const known = Object.entries(COMPANIONS).find(([, hosts]) =>
    hosts.some(host => (host.startsWith('.') ? hostname.endsWith(host) : hostname === host)),
  )
  return known?.[0]
}
