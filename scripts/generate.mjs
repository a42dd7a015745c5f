// Writes what is generated from the compiled source: config/shoal.toml, docs/config.md, docs/errors.md.
import fs from 'node:fs/promises'
import path from 'node:path'
import { annotatedConfig, configDocument } from '../dist/src/config/index.js'
import { ERROR_TABLE } from '../dist/src/core/index.js'
import { root, say } from './setup.mjs'

const OUTPUTS = {
  'config/shoal.toml': annotatedConfig(),
  'docs/config.md': configDocument(),
  'docs/errors.md': errorsDocument(),
}

for (const [file, text] of Object.entries(OUTPUTS)) {
  await fs.mkdir(path.dirname(path.join(root, file)), { recursive: true })
  await fs.writeFile(path.join(root, file), text)
  say(file)
}

function errorsDocument() {
  const rows = Object.entries(ERROR_TABLE).map(
    ([code, { sentence, retryable }]) => `| \`${code}\` | ${sentence} | ${retryable ? 'yes' : 'no'} |`,
  )
  return `# Errors

<!-- Generated from src/core/errors.ts by \`npm run generate\`. -->

Every error that Shoal raises on purpose has one of these codes, in log lines (\`err.code\`) and in the output of commands. Retryable: the same
request may succeed later without anyone changing anything.

| code | meaning | retryable |
|---|---|---|
${rows.join('\n')}
`
}
