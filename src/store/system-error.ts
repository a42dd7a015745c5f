/** A failed system call, in the shape that Node gives its own: `code` is the errno's name. */
export class SystemError extends Error {
  override readonly name = 'SystemError'
  readonly code: string
  readonly syscall: string

  constructor(syscall: string, code: string) {
    super(`${code}: ${syscall}`)
    this.code = code
    this.syscall = syscall
  }
}
