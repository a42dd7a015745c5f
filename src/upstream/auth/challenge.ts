/** One challenge of a WWW-Authenticate header (RFC 9110, 11.6.1). */
export interface Challenge {
  /** Lower case. */
  readonly scheme: string
  /** Names in lower case, values with their quoting undone. The first of a repeated name counts. */
  readonly params: Readonly<Record<string, string>>
}

/** More than any registry sends; the rest of a longer header is not read. */
const MAX_HEADER_LENGTH = 8192

const SPACE = /[ \t]*/y
const SEPARATORS = /[ \t,]*/y
const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))/y
const QUOTED = /"((?:[^"\\]|\\[^])*)"/y

/**
 * Every challenge in the values of a WWW-Authenticate header, in order. Commas separate challenges as well as parameters, so a word
 * starts a new challenge exactly when no `=` follows it. Reading stops at the first thing that breaks the grammar; what came before it stands.
 */
export function parseChallenges(values: readonly string[]): Challenge[] {
  return values.flatMap(value => parseValue(value.slice(0, MAX_HEADER_LENGTH)))
}

function parseValue(text: string): Challenge[] {
  const challenges: { scheme: string; params: Record<string, string> }[] = []
  const cursor = new Cursor(text)
  for (cursor.take(SEPARATORS); !cursor.atEnd; cursor.take(SEPARATORS)) {
    const word = cursor.take(TOKEN)
    if (word === undefined) break
    const afterWord = cursor.position
    cursor.take(SPACE)
    if (cursor.takeChar('=')) {
      const params = challenges.at(-1)?.params
      cursor.take(SPACE)
      const value = cursor.takeQuoted() ?? cursor.take(TOKEN)
      if (params === undefined || value === undefined) break
      params[word.toLowerCase()] ??= value
    } else {
      challenges.push({ scheme: word.toLowerCase(), params: Object.create(null) as Record<string, string> })
      // A credential-like blob (`Negotiate abc==`) belongs to the scheme and says nothing to us.
      if (cursor.position > afterWord) cursor.take(TOKEN68)
    }
  }
  return challenges
}

class Cursor {
  position = 0
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  get atEnd(): boolean {
    return this.position >= this.#text.length
  }

  /** What a sticky pattern matches here. Undefined, and nothing consumed, when it does not. */
  take(pattern: RegExp): string | undefined {
    return this.#match(pattern)?.[0]
  }

  takeQuoted(): string | undefined {
    return this.#match(QUOTED)?.[1]?.replace(/\\([^])/g, '$1')
  }

  takeChar(char: string): boolean {
    if (this.#text[this.position] !== char) return false
    this.position += 1
    return true
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.position
    const match = pattern.exec(this.#text)
    if (match !== null) this.position = pattern.lastIndex
    return match
  }
}
