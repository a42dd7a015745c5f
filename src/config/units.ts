const DURATION_UNITS: Readonly<Record<string, number>> = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000, ms: 1 }

/** Binary units first: formatting prefers them. */
const SIZE_UNITS: Readonly<Record<string, number>> = {
  PiB: 2 ** 50,
  TiB: 2 ** 40,
  GiB: 2 ** 30,
  MiB: 2 ** 20,
  KiB: 2 ** 10,
  B: 1,
  PB: 1e15,
  TB: 1e12,
  GB: 1e9,
  MB: 1e6,
  kB: 1e3,
  KB: 1e3,
}

/** What parseDuration() accepts, as JSON Schema states it. */
export const DURATION_PATTERN = '^(?:0|(?:[0-9]+(?:\\.[0-9]+)?(?:ms|s|m|h|d))+)$'
/** What parseSize() accepts, as JSON Schema states it. */
export const SIZE_PATTERN = '^(?:0|[0-9]+(?:\\.[0-9]+)?(?:[KMGTP]iB|[kKMGTP]?B))$'

const DURATION = new RegExp(DURATION_PATTERN)
const SIZE = new RegExp(SIZE_PATTERN)

/** Milliseconds in `5s`, `300ms`, `1.5h`, `1m30s` or `0`. Undefined when it is no duration, or one that milliseconds cannot express. */
export function parseDuration(text: string): number | undefined {
  return DURATION.test(text) ? sumOf(text, DURATION_UNITS) : undefined
}

/** The shortest single-unit form: `90s`, `1m`, `0`. `ms` is a whole number, not negative. */
export function formatDuration(ms: number): string {
  return formatWith(ms, ['d', 'h', 'm', 's'], DURATION_UNITS, 'ms')
}

/** Bytes in `4MiB`, `1.5GiB`, `10GB`, `512B` or `0`. Undefined when it is no size, or one that is not exact in a number. */
export function parseSize(text: string): number | undefined {
  return SIZE.test(text) ? sumOf(text, SIZE_UNITS) : undefined
}

/** In the largest binary unit that divides it: `50GiB`, `1025B`, `0`. `bytes` is a whole number, not negative. */
export function formatSize(bytes: number): string {
  return formatWith(bytes, ['PiB', 'TiB', 'GiB', 'MiB', 'KiB'], SIZE_UNITS, 'B')
}

/** Fractions are rounded to the unit that the result is in, but never to nothing: 0 has a meaning of its own in most keys. */
function sumOf(text: string, units: Readonly<Record<string, number>>): number | undefined {
  let sum = 0
  let positive = false
  for (const [, digits = '', unit = ''] of text.matchAll(/([0-9.]+)([A-Za-z]*)/g)) {
    sum += Number(digits) * (units[unit] ?? 1)
    positive ||= Number(digits) > 0
  }
  const total = Math.round(sum)
  return Number.isSafeInteger(total) && (total > 0 || !positive) ? total : undefined
}

function formatWith(
  value: number,
  names: readonly string[],
  units: Readonly<Record<string, number>>,
  smallest: string,
): string {
  if (value === 0) return '0'
  const name = names.find(candidate => value % (units[candidate] ?? 1) === 0) ?? smallest
  return `${value / (units[name] ?? 1)}${name}`
}
