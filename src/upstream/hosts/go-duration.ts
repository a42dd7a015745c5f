/** Milliseconds in each of the units of Go's time.ParseDuration. Both signs for micro are in use: U+00B5 and U+03BC. */
const UNITS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
}
const PART = '(\\d+\\.?\\d*|\\.\\d+)(ns|us|µs|μs|ms|s|m|h)'
const DURATION = new RegExp(`^\\+?(?:0|(?:${PART})+)$`)

/** `1s`, `1h15m30.9s`, `.5s`, `0`: whole milliseconds, rounded up. Undefined when it is no duration, negative, or beyond exact numbers. */
export function parseGoDuration(text: string): number | undefined {
  if (!DURATION.test(text)) return undefined
  let sum = 0
  for (const [, digits, unit = ''] of text.matchAll(new RegExp(PART, 'g'))) sum += Number(digits) * (UNITS[unit] ?? 0)
  // Sums of fractions are a little off; what is off by less than a nanosecond is not a millisecond more.
  const total = Math.ceil(Number((sum - 1e-7).toFixed(6)))
  return Number.isSafeInteger(total) ? Math.max(0, total) : undefined
}
