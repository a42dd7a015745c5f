import type { KeyPath } from '../core/index.ts'

/** One thing that is wrong with a configuration. `message` never holds a secret. */
export interface Problem {
  /** The key it is about; empty for a whole file. */
  readonly path: KeyPath
  readonly message: string
}
