import { normaliseRegistry, raceAbort, ShoalError, type Clock, type Logger } from '../../core/index.ts'
import { DEFAULT_REGISTRIES } from '../default-registries.ts'
import type { CredentialPluginsOptions } from '../options.ts'
import { CredentialPlugins } from './credential-plugins.ts'
import { isSameCredential, type Credential, type CredentialOptions, type CredentialSource } from './credential.ts'
import { DockerConfig } from './docker-config.ts'
import { ProgramRunner } from './program-runner.ts'

/** How long a credential helper or plugin may take. */
const PROGRAM_TIMEOUT_MS = 10_000

/** What a credential is wanted for. */
export interface CredentialRequest {
  /** Host or host:port, Docker Hub's aliases allowed. */
  readonly host: string
  readonly repository: string
}

/** The node's own credentials, by registry. May be asked concurrently. */
export interface Keychain {
  /** As CredentialSource.get. What goes wrong in a file, a helper or a plugin is logged, and as if that one had no credential. */
  get(request: CredentialRequest, options: CredentialOptions): Promise<Credential | undefined>
}

/** Ends the programs that still run; may be called again. get() then throws ERR_CLOSED. */
export interface OpenKeychain extends Keychain, AsyncDisposable {
  close(): Promise<void>
}

export const emptyKeychain: Keychain = { get: () => Promise.resolve(undefined) }

export interface KeychainDeps {
  readonly log: Logger
  readonly clock: Clock
  /** Says where the docker config is and where programs are found, and is passed on to them. Default: the process's own. */
  readonly env?: NodeJS.ProcessEnv
}

export interface KeychainOptions {
  /** A docker config.json; '' means $DOCKER_CONFIG/config.json or ~/.docker/config.json, where there is one. */
  readonly dockerConfig: string
  readonly plugins: readonly CredentialPluginsOptions[]
  /** How long a helper or a plugin may take. Default: 10 s. */
  readonly programTimeoutMs?: number
}

/** One place that credentials are looked for in. `host`: normalised. Throws ERR_CLOSED and nothing else. */
interface Place {
  get(request: CredentialRequest, refused: Credential | undefined): Promise<Credential | undefined>
}

/**
 * The docker config and its helpers, then kubelet's plugins in the order given; the first that has a credential answers. Files are read
 * again when they change. Throws ERR_CONFIG_INVALID when a file that was named cannot be used; later on that is logged, and what was read
 * last stays in force.
 */
export async function openKeychain(deps: KeychainDeps, options: KeychainOptions): Promise<OpenKeychain> {
  const { log, clock, env = process.env } = deps
  const { programTimeoutMs: timeoutMs = PROGRAM_TIMEOUT_MS } = options
  const runner = new ProgramRunner({ env }, { timeoutMs })
  const shared = { log, clock, env, runner }
  const places: Place[] = [await DockerConfig.open(shared, { file: options.dockerConfig })]
  for (const plugins of options.plugins) places.push(await CredentialPlugins.open(shared, plugins))
  return new FirstOf({ places, runner })
}

class FirstOf implements OpenKeychain {
  readonly #places: readonly Place[]
  readonly #runner: ProgramRunner

  constructor(deps: { readonly places: readonly Place[]; readonly runner: ProgramRunner }) {
    this.#places = deps.places
    this.#runner = deps.runner
  }

  async get({ host, repository }: CredentialRequest, options: CredentialOptions): Promise<Credential | undefined> {
    options.signal?.throwIfAborted()
    if (this.#runner.closed) throw new ShoalError('ERR_CLOSED', 'the keychain is closed')
    const name = normaliseRegistry(host)
    if (name === undefined) return undefined
    return raceAbort(this.#first({ host: name, repository }, options.refused), options.signal)
  }

  close(): Promise<void> {
    return this.#runner.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #first(request: CredentialRequest, refused: Credential | undefined): Promise<Credential | undefined> {
    for (const place of this.#places) {
      const credential = await place.get(request, refused)
      if (credential !== undefined) return isSameCredential(credential, refused) ? undefined : credential
    }
    return undefined
  }
}

/**
 * A login was given for a host, so the host is what the keychain is asked for. That images call another one by its name is the operator's
 * business, and no reason to send it there: a mirror of Docker Hub in the next room is not Docker Hub. The public registries' logins are
 * not for plain http either. Undefined: the keychain is not to be asked.
 */
export function credentialsFor(keychain: Keychain, base: URL): CredentialSource | undefined {
  const name = normaliseRegistry(base.host)
  const isPublicRegistry = name !== undefined && Object.hasOwn(DEFAULT_REGISTRIES, name)
  if (isPublicRegistry && base.protocol !== 'https:') return undefined
  return { get: (repository, options) => keychain.get({ host: base.host, repository }, options) }
}
