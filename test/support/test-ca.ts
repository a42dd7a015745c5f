import { execFile } from 'node:child_process'
import fs from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
const DAYS = ['-days', '2']

/** A certificate and its key: the files, and their PEM text. */
export interface TestCertificate {
  readonly certFile: string
  readonly keyFile: string
  readonly cert: string
  readonly key: string
}

/** A certificate authority of a test's own. Its files are removed when it is disposed of. */
export interface TestCa extends AsyncDisposable {
  /** To be trusted: the authority's own certificate. */
  readonly caFile: string
  readonly ca: string
  readonly directory: string
  /** A leaf for these names (default: localhost and both loopback addresses), good for servers and clients. */
  issue(names?: readonly string[]): Promise<TestCertificate>
}

/** Made with the openssl command, in a temporary directory. */
export async function createTestCa(): Promise<TestCa> {
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), 'shoal-ca-'))
  const file = (name: string): string => path.join(directory, name)
  const caFile = file('ca.pem')
  const subject = ['-subj', '/CN=Shoal test CA']
  const usage = ['-addext', 'keyUsage=critical,keyCertSign']
  await run('openssl', [
    'req',
    '-x509',
    ...NEW_KEY,
    ...DAYS,
    ...subject,
    ...usage,
    '-keyout',
    file('ca.key'),
    '-out',
    caFile,
  ])
  let issued = 0
  return {
    caFile,
    ca: await fs.readFile(caFile, 'utf8'),
    directory,
    issue: async (names = ['localhost', '127.0.0.1', '::1']) => {
      const name = `leaf-${++issued}`
      const [certFile, keyFile, request, extensions] = ['pem', 'key', 'csr', 'ext'].map(end =>
        file(`${name}.${end}`),
      ) as [string, string, string, string]
      const subjects = names.map(subjectAltName).join(',')
      await fs.writeFile(extensions, `subjectAltName=${subjects}\nextendedKeyUsage=serverAuth,clientAuth\n`)
      await run('openssl', ['req', '-new', ...NEW_KEY, '-subj', `/CN=${name}`, '-keyout', keyFile, '-out', request])
      const signer = ['-CA', caFile, '-CAkey', file('ca.key'), '-CAcreateserial']
      await run('openssl', [
        'x509',
        '-req',
        '-in',
        request,
        ...signer,
        ...DAYS,
        '-extfile',
        extensions,
        '-out',
        certFile,
      ])
      const [cert, key] = await Promise.all([fs.readFile(certFile, 'utf8'), fs.readFile(keyFile, 'utf8')])
      return { certFile, keyFile, cert, key }
    },
    [Symbol.asyncDispose]: () => fs.rm(directory, { recursive: true, force: true }),
  }
}

function subjectAltName(name: string): string {
  return /^[\d.]+$|:/.test(name) ? `IP:${name}` : `DNS:${name}`
}
