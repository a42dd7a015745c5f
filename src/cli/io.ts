/** What a command may touch of the process. Errors are thrown; main.ts prints them and chooses the exit code. */
export interface CommandIo {
  readonly stdout: NodeJS.WritableStream
  readonly stderr: NodeJS.WritableStream
  readonly env: NodeJS.ProcessEnv
}
