// npm run demo: installs what is missing, builds, and runs scripts/demo/main.ts as compiled.
import { spawn } from 'node:child_process'
import path from 'node:path'
import { build, ensurePackages, root, say } from './setup.mjs'

try {
  await ensurePackages()
  await build()
  const child = spawn(process.execPath, [path.join(root, 'dist', 'scripts', 'demo', 'main.js')], { stdio: 'inherit' })
  // A terminal sends Ctrl-C to both of us; we stay until the demo has tidied up.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.once('exit', code => {
    process.exitCode = code ?? 1
  })
} catch (error) {
  say(error instanceof Error ? error.message : String(error))
  process.exitCode = 1
}
