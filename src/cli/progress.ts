import { systemClock, type Clock } from '../core/index.ts'

/** Bytes with one decimal in the largest binary unit below: `1.5 MiB`, `512 B`. For people; not to be parsed. */
export function humanBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = bytes
  let unit = 0
  // Rounding must not show 1024.0 of a unit.
  while (value >= 1023.95 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(1)} ${units[unit] ?? ''}`
}

/** `42s`, `3m07s`, `2h05m`. */
export function humanSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  const pad = (value: number): string => String(value).padStart(2, '0')
  if (whole < 60) return `${whole}s`
  if (whole < 3600) return `${Math.floor(whole / 60)}m${pad(whole % 60)}s`
  return `${Math.floor(whole / 3600)}h${pad(Math.floor((whole % 3600) / 60))}m`
}

export interface ProgressState {
  readonly label: string
  readonly done: number
  /** Bytes in all; undefined while unknown. */
  readonly total: number | undefined
  readonly elapsedMs: number
}

/** `label [=====>    ]  50 %  1.0 GiB of 2.0 GiB  100.0 MiB/s  11s`, no wider than `columns`: the bar gives way first. */
export function progressBar(state: ProgressState, columns: number): string {
  const facts = factsOf(state).join('  ')
  const { total, done, label } = state
  const room = Math.min(40, columns - label.length - facts.length - 5)
  const bar = total === undefined || room < 5 ? '' : `[${drawBar(fractionOf(done, total), room)}] `
  const line = `${label} ${bar}${facts}`
  return line.length > columns ? line.slice(0, columns) : line
}

/** The same without a bar, for where lines are kept: a log, a file, a pipe. */
export function progressLine(state: ProgressState): string {
  return `${state.label}: ${factsOf(state).join(', ')}`
}

function factsOf({ done, total, elapsedMs }: ProgressState): string[] {
  const rate = elapsedMs > 0 ? (done * 1000) / elapsedMs : 0
  const speed = `${humanBytes(Math.round(rate))}/s`
  if (total === undefined) return [humanBytes(done), speed, humanSeconds(elapsedMs / 1000)]
  const percent = `${Math.floor(fractionOf(done, total) * 100)} %`.padStart(5)
  const amount = `${humanBytes(done)} of ${humanBytes(total)}`
  if (done >= total) return [percent, amount, speed, `took ${humanSeconds(elapsedMs / 1000)}`]
  return [percent, amount, speed, ...(rate > 0 ? [`${humanSeconds((total - done) / rate)} left`] : [])]
}

function fractionOf(done: number, total: number): number {
  return total === 0 ? 1 : Math.min(1, done / total)
}

function drawBar(fraction: number, width: number): string {
  const filled = Math.floor(fraction * width)
  return filled === width ? '='.repeat(width) : `${'='.repeat(filled)}>`.padEnd(width)
}

/** A stream that may be a terminal. */
export interface ProgressOutput {
  write(text: string): unknown
  readonly isTTY?: boolean
  readonly columns?: number
}

export interface ProgressOptions {
  readonly label: string
  readonly total?: number | undefined
}

export interface Progress {
  /** Bytes done so far, in all. May be called as often as one likes; drawing is limited. */
  update(done: number, total?: number): void
  /** Writes the last state and ends the line. More calls do nothing. */
  finish(): void
}

/** How often a bar is drawn, and how often a plain line is written. */
const BAR_INTERVAL_MS = 100
const LINE_INTERVAL_MS = 5000
const DEFAULT_COLUMNS = 80
const CLEAR_LINE = '\r\u001b[K'

/**
 * Progress on `output`: a bar that redraws itself on a terminal, otherwise one plain line every few seconds. It has no timer: what is
 * drawn is what update() was last told.
 */
export function openProgress(
  output: ProgressOutput,
  options: ProgressOptions,
  clock: Pick<Clock, 'now'> = systemClock,
): Progress {
  const started = clock.now()
  const interval = output.isTTY === true ? BAR_INTERVAL_MS : LINE_INTERVAL_MS
  let state: ProgressState = { label: options.label, done: 0, total: options.total, elapsedMs: 0 }
  let drawn = started
  let finished = false
  const draw = (end: boolean): void => {
    if (output.isTTY !== true) output.write(`${progressLine(state)}\n`)
    else output.write(`${CLEAR_LINE}${progressBar(state, output.columns ?? DEFAULT_COLUMNS)}${end ? '\n' : ''}`)
  }
  return {
    update: (done, total) => {
      if (finished) return
      const now = clock.now()
      state = { ...state, done, total: total ?? state.total, elapsedMs: now - started }
      if (now - drawn < interval) return
      drawn = now
      draw(false)
    },
    finish: () => {
      if (finished) return
      finished = true
      state = { ...state, elapsedMs: clock.now() - started }
      draw(true)
    },
  }
}

/** Says nothing: for --json. */
export const silentProgress: Progress = { update: () => undefined, finish: () => undefined }
