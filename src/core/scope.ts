/** Anything with an orderly end. */
export type Closable = AsyncDisposable | Disposable | { close(): Promise<void> | void }

/**
 * A stack of things to close, last opened first. What AsyncDisposableStack will be when Node has it: one failing close does not stop the
 * others; the first failure is rethrown at the end, with the rest as an AggregateError.
 */
export class Scope implements AsyncDisposable {
  readonly #stack: (() => unknown)[] = []
  #closing: Promise<void> | undefined

  /** Adopts `resource` and returns it. */
  use<T extends Closable>(resource: T): T {
    this.defer(() => closeOf(resource))
    return resource
  }

  defer(close: () => unknown): void {
    this.#stack.push(close)
  }

  /** Repeatable: a call while one is under way waits for it; what was adopted since the last one is closed by the next. */
  close(): Promise<void> {
    this.#closing ??= this.#unwind().finally(() => (this.#closing = undefined))
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #unwind(): Promise<void> {
    const failures: unknown[] = []
    for (let close = this.#stack.pop(); close !== undefined; close = this.#stack.pop()) {
      try {
        await close()
      } catch (error: unknown) {
        failures.push(error)
      }
    }
    if (failures.length === 1) throw failures[0]
    if (failures.length > 1) throw new AggregateError(failures, 'several resources failed to close')
  }
}

function closeOf(resource: Closable): unknown {
  if (Symbol.asyncDispose in resource) return resource[Symbol.asyncDispose]()
  if (Symbol.dispose in resource) {
    resource[Symbol.dispose]()
    return undefined
  }
  return resource.close()
}
