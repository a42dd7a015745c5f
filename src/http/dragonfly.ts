import type { IncomingMessage } from 'node:http'
import { digestHex, type Digest } from '../core/index.ts'
import type { Urgency } from '../blobs/index.ts'
import type { ErrorAnswer } from './registry-error.ts'

/** What a request's X-Dragonfly headers ask for. What is not in here (tags, applications, piece lengths ...) is accepted and means nothing. */
export interface Wishes {
  readonly urgency: Urgency
  /** Only what is here: no source may be asked. */
  readonly storedOnly: boolean
  /** After a range, the rest of the blob as well. */
  readonly prefetch: boolean
  /** It asks for what is not done. */
  readonly refusal: ErrorAnswer | undefined
}

const PREFIX = 'x-dragonfly-'
const HIGHEST = 6

const FORBIDDEN: ErrorAnswer = refuse('X-Dragonfly-Priority 1 forbids this download')
const NO_OUTPUT: ErrorAnswer = refuse(
  'X-Dragonfly-Output-Path and X-Dragonfly-Force-Hard-Link are refused: no file is written on behalf of a request',
)

function refuse(message: string): ErrorAnswer {
  return { status: 403, code: 'DENIED', message, headers: { 'X-Dragonfly-Error-Type': 'proxy' } }
}

/** Undefined: the request carries no such header, which is the usual case and costs nothing but a look at the names. */
export function wishesOf(request: IncomingMessage): Wishes | undefined {
  if (!carriesAny(request.rawHeaders)) return undefined
  const { headers } = request
  const value = (name: string): string | undefined => headers[`${PREFIX}${name}`]?.toString()
  const priority = parsePriority(value('priority'))
  return {
    urgency: priority === 1 || priority === 2 || priority === 3 ? 'prefetch' : 'demand',
    storedOnly: priority === 2,
    prefetch: value('prefetch')?.trim().toLowerCase() === 'true',
    refusal:
      value('output-path') !== undefined || value('force-hard-link') !== undefined
        ? NO_OUTPUT
        : priority === 1
          ? FORBIDDEN
          : undefined,
  }
}

/** Headers of an answer about a blob to a request that carried any: its task, which is the blob, and whether all of it is here. */
export function taskHeaders(digest: Digest, isComplete: boolean): string[] {
  const headers = ['X-Dragonfly-Task-ID', digestHex(digest)]
  if (isComplete) headers.push('X-Dragonfly-Task-Download-Finished', 'true')
  return headers
}

/** Names and values in turn, as they came. Nothing is allocated for names that begin otherwise. */
function carriesAny(rawHeaders: readonly string[]): boolean {
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] ?? ''
    const isX = name.charCodeAt(0) === 0x78 || name.charCodeAt(0) === 0x58
    if (isX && name.length > PREFIX.length && name.slice(0, PREFIX.length).toLowerCase() === PREFIX) return true
  }
  return false
}

/** 0 to 6; a number outside is taken for the nearest, anything else for none. */
function parsePriority(text: string | undefined): number {
  const match = /^\s*([+-]?\d+)\s*$/.exec(text ?? '')
  return match === null ? HIGHEST : Math.min(HIGHEST, Math.max(0, Number(match[1])))
}
