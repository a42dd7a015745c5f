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
