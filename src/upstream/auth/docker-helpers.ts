import type { Clock, Logger } from '../../core/index.ts'
import { loginCredential, tokenCredential, type Credential } from './credential.ts'
import { HelperAnswers, type HelperOutcome } from './helper-answers.ts'
import { parseJsonObject } from './json.ts'
import { exitOf, type ProgramRunner } from './program-runner.ts'

/** How long an answer of a helper holds. Tokens that helpers make live for an hour and more. */
const KEEP_MS = 5 * 60_000
/** How long it holds that there is no login: somebody may be about to log in. */
const NONE_MS = 30_000
/** The one answer with an exit code that is no failure (docker-credential-helpers, credentials/error.go). */
const NOT_FOUND = 'credentials not found in native keychain'
/** The user name under which helpers hand out identity tokens. */
const TOKEN_USER = '<token>'

/** `none`: the helper works, and has nothing. */
type HelperAnswer = { readonly credential: Credential } | 'none'

export interface HelperRequest {
  /** Of the helper: `docker-credential-<name>`. */
  readonly name: string
  /** Normalised name of the registry. */
  readonly host: string
  /** What the helper knows it by. */
  readonly server: string
}

/** Docker's credential helpers: programs in PATH that are told a server's URL and print a login. */
export class DockerHelpers {
  readonly #deps: { readonly clock: Clock; readonly log: Logger; readonly runner: ProgramRunner }
  readonly #answers = new Map<string, HelperAnswers<HelperAnswer>>()

  constructor(deps: { readonly clock: Clock; readonly log: Logger; readonly runner: ProgramRunner }) {
    this.#deps = deps
  }

  /** Undefined: it has none, or failed, which is logged. Throws ERR_CLOSED. */
  async get({ name, host, server }: HelperRequest, refused: Credential | undefined): Promise<Credential | undefined> {
    const question = {
      keys: [host],
      failureKey: host,
      registry: host,
      ask: () => this.#ask(name, host, server),
      credentialOf,
    }
    const answer = await this.#answersOf(name).get(question, refused)
    return answer === undefined ? undefined : credentialOf(answer)
  }

  #answersOf(name: string): HelperAnswers<HelperAnswer> {
    const known = this.#answers.get(name)
    if (known !== undefined) return known
    const made = new HelperAnswers<HelperAnswer>(this.#deps, { helper: `docker-credential-${name}` })
    this.#answers.set(name, made)
    return made
  }

  async #ask(name: string, host: string, server: string): Promise<HelperOutcome<HelperAnswer>> {
    const program = { file: `docker-credential-${name}`, args: ['get'], input: server }
    const result = await this.#deps.runner.run(program)
    if (result.kind === 'failed') return result
    const { code, stdout } = result
    if (code !== 0) {
      if (stdout.trim() === NOT_FOUND) return { kind: 'answered', key: host, value: 'none', keepMs: NONE_MS }
      return { kind: 'failed', why: exitOf(result) }
    }
    const credential = parseAnswer(stdout)
    if (credential === undefined) return { kind: 'failed', why: 'printed no login' }
    return { kind: 'answered', key: host, value: { credential }, keepMs: KEEP_MS }
  }
}

function credentialOf(answer: HelperAnswer): Credential | undefined {
  return answer === 'none' ? undefined : answer.credential
}

/** `{ "ServerURL": ..., "Username": ..., "Secret": ... }`. Undefined: nothing of use; never quoted. */
function parseAnswer(stdout: string): Credential | undefined {
  const { Username: username, Secret: secret } = parseJsonObject(stdout) ?? {}
  if (typeof username !== 'string' || typeof secret !== 'string') return undefined
  return username === TOKEN_USER ? tokenCredential('identity-token', secret) : loginCredential(username, secret)
}
